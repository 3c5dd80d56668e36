"""Builds the site of the course from the notebooks as they lie, offline: ``python -m tests.site [FOLDER]``.

The front page is the README; the notebooks follow in their order, then the cards of the data. Knows
nothing of lepton_lib, and runs no notebook.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The folders of notebooks, in the order of the contents, and how the contents call them.
PARTS = {
    "notebooks": "The loop",
    "notebooks/industry": "From industry",
    "notebooks/research": "From research",
}


class SiteError(RuntimeError):
    """The site can't be built, or Sphinx has warned."""


def build(out: Path, root: Path = ROOT) -> list[str]:
    """Build the site of the course in ``root`` into ``out``, which is replaced.

    Args:
        out: The site's folder; ``out / "index.html"`` opens it, from the disk, with no server.
        root: The repository, or a copy of its README, LICENSE, notebooks and datasets.

    Returns:
        The pages after the front page, in order, as names relative to ``out`` without their ending.

    Raises:
        SiteError: Sphinx fails or warns: a broken link, a picture that is not there, a heading out
            of order.
    """
    with tempfile.TemporaryDirectory() as work:
        source, fresh = Path(work, "source"), Path(work, "site")
        pages = _collect(root, source)
        words = [
            "-m",
            "sphinx",
            "-b",
            "html",
            "-W",
            "--keep-going",
            "-q",
            "-c",
            HERE,
            "-d",
            Path(work, "doctrees"),
        ]
        done = subprocess.run(
            [sys.executable, *map(str, words), str(source), str(fresh)],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SiteError(f"Sphinx ended with {done.returncode}:\n{done.stderr}")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(
            fresh, out, ignore=shutil.ignore_patterns(".buildinfo", ".doctrees", "objects.inv")
        )
    return pages


def _collect(root: Path, source: Path) -> list[str]:
    """Lay out what the site is made of, and the front page with the contents of all parts."""
    keep = [
        *root.glob("notebooks/**/*"),
        *root.glob("datasets/**/README.md"),
        *root.glob("datasets/*/case.toml"),
    ]
    keep += [root / "LICENSE", root / "tests/benchmarks/RESULTS.md"]
    for path in keep:
        if path.is_file() and ".ipynb_checkpoints" not in path.parts:
            target = source / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    parts = {
        title: [f"{folder}/{path.stem}" for path in sorted((source / folder).glob("*.ipynb"))]
        for folder, title in PARTS.items()
    }
    cards = sorted(path.parent.name for path in source.glob("datasets/*/README.md"))
    parts["The data"] = ["datasets/README", *(f"datasets/{name}/README" for name in cards)]
    parts["Figures"] = (
        ["tests/benchmarks/RESULTS"] if (source / "tests/benchmarks/RESULTS.md").is_file() else []
    )
    front = (root / "README.md").read_text(encoding="utf-8")
    for title, pages in parts.items():
        if pages:
            front += (
                f"\n```{{toctree}}\n:caption: {title}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"
            )
    (source / "index.md").write_text(front, encoding="utf-8")
    return [page for pages in parts.values() for page in pages]
