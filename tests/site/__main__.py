"""``python -m tests.site [FOLDER]``: build the site of the course; without a folder into ``site/``."""

import sys
from pathlib import Path

from tests.site import ROOT, SiteError, build

out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site"
try:
    build(out)
except SiteError as error:
    sys.exit(str(error))
print(f"Built {out / 'index.html'}: open it in a browser; it needs neither a server nor a network.")
