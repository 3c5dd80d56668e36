"""``python -m lepton_lib.serving RUN``: what `serving.start` and container images run."""

import argparse
import sys

from lepton_lib.errors import LeptonError
from lepton_lib.serving import server

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m lepton_lib.serving", description="Serve a run folder's model."
    )
    parser.add_argument("run_dir")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trust", action="append", metavar="KEY", help="a public key to trust")
    parser.add_argument("--require-key", action="store_true", help="demand an API key")
    parser.add_argument("--no-keys", action="store_true", help="answer without a key")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    try:
        server.serve(**vars(parser.parse_args()))
    except LeptonError as error:
        sys.exit(str(error))
