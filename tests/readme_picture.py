"""Takes the README's picture of a run's page: ``python -m tests.readme_picture RUN_DIR``."""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from lepton_lib.site import ROOT
from tests import chromium

PICTURE = ROOT / "notebooks" / "images" / "run.png"
LIMIT = 150_000  # bytes


def main(run_dir: str) -> None:
    """Take the picture at 1280 x 900, light."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path(), args=chromium.ARGUMENTS
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.goto((Path(run_dir).resolve() / "index.html").as_uri())
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURE)
        browser.close()
    size = PICTURE.stat().st_size
    if size > LIMIT:
        sys.exit(f"{PICTURE} has {size:,} bytes; at most {LIMIT:,} are wanted.")
    print(f"{PICTURE}: {size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
