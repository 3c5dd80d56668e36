"""``python -m lepton_lib.site [FOLDER]``: build the site; without a folder into ``site/``."""

import sys
from pathlib import Path

from lepton_lib.errors import RunError
from lepton_lib.site import ROOT, build

out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site"
try:
    build(out)
except RunError as error:
    sys.exit(str(error))
sys.stdout.write(f"Built {out / 'index.html'}: it needs neither a server nor a network.\n")
