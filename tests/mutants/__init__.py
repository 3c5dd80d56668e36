"""Faults planted in lepton_lib, to see whether the tests and the notebooks notice: `make mutants`."""
