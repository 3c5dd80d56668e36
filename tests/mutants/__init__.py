"""Mutation tests: plant faults in lepton_lib and see what notices them (`make mutants`)."""
