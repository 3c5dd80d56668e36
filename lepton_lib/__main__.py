"""The `lepton` command, also ``python -m lepton_lib``; names the extra that it needs."""

from __future__ import annotations

import sys

from lepton_lib.errors import MissingExtraError, needs_extra


def main() -> None:
    """The entry point of the console script."""
    try:
        with needs_extra("class", "the command"):
            from lepton_lib import cli
    except MissingExtraError as error:
        sys.exit(f"lepton: {error}")
    cli.main()


if __name__ == "__main__":
    main()
