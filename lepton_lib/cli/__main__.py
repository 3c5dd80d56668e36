"""``python -m lepton_lib.cli``: the `lepton` command where its script isn't on the path."""

from lepton_lib.cli import main

main()
