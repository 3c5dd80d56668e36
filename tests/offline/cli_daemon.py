"""Runs `lepton` commands, a line of JSON each, in one process, which imports everything once."""

import contextlib
import io
import json
import sys

from lepton_lib.cli import main

replies = sys.stdout
for line in sys.stdin:
    sys.argv = ["lepton", *json.loads(line)]
    code = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=replies, flush=True)
