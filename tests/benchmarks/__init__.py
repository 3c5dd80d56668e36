"""Benchmarks against peers: `make bench` measures them and writes RESULTS.md. None is a test."""
