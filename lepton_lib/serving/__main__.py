"""``python -m lepton_lib.serving RUN``: what `lepton_lib.serving.start` runs; a person uses ``lepton serve RUN``."""

import argparse
import sys

from lepton_lib.errors import LeptonError
from lepton_lib.serving import serve

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lepton_lib.serving", description="Serve a run folder's model.")
    parser.add_argument("run_dir")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    try:
        serve(**vars(parser.parse_args()))
    except LeptonError as error:
        sys.exit(str(error))
