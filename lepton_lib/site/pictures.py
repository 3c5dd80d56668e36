"""A Sphinx extension: pictures in a notebook's outputs get the alt text stored with them."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx


def alternative_texts(notebook: Path) -> dict[str, str]:
    """The alt text of each stored PNG by the picture's SHA-256, which myst-nb names its file by."""
    texts = {}
    for cell in nbformat.read(notebook, 4).cells:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                digest = hashlib.sha256(b64decode(picture)).hexdigest()
                texts[digest] = output.metadata.get("image/png", {}).get("alt", "")
    return texts


def _describe(app: Sphinx, tree: nodes.document) -> None:
    source = Path(app.env.doc2path(app.env.current_document.docname))
    if source.suffix == ".ipynb":
        texts = alternative_texts(source)
        for picture in tree.findall(nodes.image):
            if (digest := Path(picture["uri"]).stem) in texts:
                picture["alt"] = texts[digest]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension; called by Sphinx."""
    app.connect("doctree-read", _describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
