"""A Sphinx extension: pictures among a notebook's outputs get the alternative text that is stored beside them."""

import hashlib
from base64 import b64decode
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx


def alternative_texts(notebook: Path) -> dict[str, str]:
    """The alternative text of each PNG in the outputs, by the SHA-256 of the picture, which myst-nb names it by."""
    texts = {}
    for cell in nbformat.read(notebook, 4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                content = b64decode(output.data["image/png"])
                texts[hashlib.sha256(content).hexdigest()] = output.metadata.get(
                    "image/png", {}
                ).get("alt", "")
    return texts


def _describe(app: Sphinx, tree: nodes.document) -> None:
    source = Path(app.env.doc2path(app.env.current_document.docname))
    if source.suffix == ".ipynb":
        texts = alternative_texts(source)
        for picture in tree.findall(nodes.image):
            if Path(picture["uri"]).stem in texts:
                picture["alt"] = texts[Path(picture["uri"]).stem]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", _describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
