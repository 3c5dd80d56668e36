"""Figures: ratios to peers, measured in one run. `make bench` writes them to RESULTS.md; nothing here is a test."""
