"""Builds the site of the course, offline: ``python -m lepton_lib.site [FOLDER]``.

The front page is the README; `PARTS` lists all other pages. Notebooks are shown with the outputs
that are stored in them: nothing is run.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from lepton_lib.errors import RunError
from lepton_lib.site import reference

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# The contents, in order: the title of each part, and its pages as paths or patterns in the
# repository. A page that isn't there is left out.
PARTS: dict[str, tuple[str, ...]] = {
    "Start here": ("start.md", "ladder.md", "stuck.md"),
    "The loop": ("notebooks/*.ipynb",),
    "From industry": ("notebooks/industry/*.ipynb", "education.md", "city.md"),
    "From research": ("notebooks/research/*.ipynb",),
    "To look up": ("glossary.md", "notation.md", "bibliography.md"),
    "The data": ("datasets/README.md", "datasets/*/README.md"),
    "Many runs": ("runs_at_scale.md",),
    "Figures": ("tests/benchmarks/RESULTS.md",),
    "How it is built": (
        "architecture.md",
        "reference/case.md",
        "reference/library.md",
        *(f"reference/{name}.md" for name in reference.MODULES),
        "contributing.md",
        "security.md",
        "CHANGELOG.md",
    ),
}
# Pages that are written while the site is built: the path that `PARTS` names, and what returns the
# Markdown of the page.
WRITTEN: dict[str, Callable[[], str]] = {
    "reference/case.md": reference.case_reference,
    "reference/library.md": reference.library_reference,
    **{
        f"reference/{name}.md": functools.partial(reference.module_reference, name)
        for name in reference.MODULES
    },
}
# Pages that lie elsewhere in the repository than on the site: a folder, and single ones.
PAGES = "lepton_lib/site/pages"
MOVED = {
    ".github/SECURITY.md": "security.md",
    ".github/CONTRIBUTING.md": "contributing.md",
}
# What the pages show and link to, as patterns in the repository.
LINKED = ("notebooks/**/*", "datasets/**/README.md", "datasets/*/case.toml", "LICENSE")


def build(out: Path, root: Path = ROOT) -> list[str]:
    """Build the site of the course in ``root`` into ``out``, which is replaced.

    Args:
        out: The site's folder; ``out / "index.html"`` opens it, from the disk, with no server.
        root: The repository, or a copy of its README, LICENSE, notebooks and datasets.

    Returns:
        The pages after the front page, in order, as names relative to ``out`` without their ending.

    Raises:
        RunError: Sphinx fails or warns: a broken link, a missing picture, a skipped heading level.
    """
    with tempfile.TemporaryDirectory() as work:
        source, html = Path(work, "source"), Path(work, "html")
        pages = _collect(root, source)
        options = ["-b", "html", "-W", "--keep-going", "-q", "-c", str(HERE), "-d", f"{work}/trees"]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        sphinx = subprocess.run(
            [sys.executable, "-m", "sphinx", *options, str(source), str(html)],
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        if sphinx.returncode:
            got = f"exit code {sphinx.returncode} of Sphinx:\n{sphinx.stderr}\n"
            raise RunError("the site", got, "no warning", "Correct the page that is named.")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(html, out, ignore=shutil.ignore_patterns(".buildinfo", "objects.inv"))
    return pages


def _collect(root: Path, source: Path) -> list[str]:
    """Copy the sources of all pages to ``source``, and write the front page with the contents."""
    patterns = [*LINKED, *(pattern for part in PARTS.values() for pattern in part)]
    for path in {path for pattern in patterns for path in root.glob(pattern)}:
        if path.is_file() and ".ipynb_checkpoints" not in path.parts:
            target = source / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for path in (root / PAGES).glob("*"):
        shutil.copy(path, source)
    for name, place in MOVED.items():
        if (root / name).is_file():
            shutil.copy(root / name, source / place)
    for name, page in WRITTEN.items() if (root / "lepton_lib").is_dir() else ():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(page(), encoding="utf-8")
    front, pages = (root / "README.md").read_text(encoding="utf-8"), []
    front = front.replace(f"]({PAGES}/", "](")
    for name, place in MOVED.items():
        front = front.replace(f"]({name})", f"]({place})")
    for title, part in PARTS.items():
        found = [path for pattern in part for path in sorted(source.glob(pattern))]
        if names := [path.relative_to(source).with_suffix("").as_posix() for path in found]:
            lines = "\n".join(names)
            front += f"\n```{{toctree}}\n:caption: {title}\n:hidden:\n\n{lines}\n```\n"
            pages += names
    (source / "index.md").write_text(front, encoding="utf-8")
    return pages
