"""``python -m lepton_lib.serving RUN``: what `lepton_lib.serving.start` runs; a person uses ``lepton serve RUN``."""

import argparse
import socket
import sys

from lepton_lib.errors import LeptonError
from lepton_lib.serving import process

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m lepton_lib.serving", description="Serve a run folder's model."
    )
    parser.add_argument("run_dir")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--trust", action="append", metavar="KEY", help="a public key whose signature counts"
    )
    parser.add_argument(
        "--require-key", action="store_true", help="demand an API key, also where there is none yet"
    )
    parser.add_argument("--no-keys", action="store_true", help="let everybody ask without a key")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    parser.add_argument("--fd", type=int, help="a listening socket: be one of several workers")
    parser.add_argument("--share", type=int, default=1, help="how many workers there are")
    given = vars(parser.parse_args())
    number, workers = given.pop("fd"), given.pop("share")
    try:
        if number is None:
            process.serve(**given)
        else:
            keywords = {
                name: given[name] for name in ("run_dir", "trust", "require_key", "with_parent")
            }
            process.answer(listener=socket.socket(fileno=number), workers=workers, **keywords)
    except LeptonError as error:
        sys.exit(str(error))
