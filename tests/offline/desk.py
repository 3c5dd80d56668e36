"""Answers `lepton` commands, a line of JSON each, in one process: imports and the kernels' server are paid for once."""

import contextlib
import io
import json
import sys

from lepton_lib.cli import main

answers = sys.stdout
for line in sys.stdin:
    sys.argv = ["lepton", *json.loads(line)]
    code = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=answers, flush=True)
