"""Sphinx's configuration: no page is executed, and a reader's browser fetches nothing."""

import hashlib
from base64 import b64decode
from importlib.metadata import distribution
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

project = "From research to application"
html_title = project
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
# it would fetch pages, which a browser refuses on a page opened from the disk
html_show_search_summary = False

extensions = [
    "myst_nb",
    "sphinx.ext.mathjax",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
default_role = "code"  # of single backticks in docstrings
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # none are used; the defaults come from a network
nb_render_markdown_format = "gfm"

html_theme = "furo"
pygments_dark_style = "github-dark"
html_theme_options = {"navigation_with_keys": True}
html_css_files = ["course.css"]
mathjax_path = "tex-svg-full.js"  # one file, glyphs included
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}
_mathjax = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static")
html_static_path = [
    str(Path(__file__).with_name("course.css")),
    f"{_mathjax}/mathjax/{mathjax_path}",
]


def _add_alt_texts(app: Sphinx, tree: nodes.document) -> None:
    """Give the pictures in a notebook's outputs the alt texts that are stored with them."""
    source = Path(app.env.doc2path(app.env.current_document.docname))
    cells = nbformat.read(source, 4).cells if source.suffix == ".ipynb" else []
    texts = {}  # by the picture's SHA-256, which myst-nb names its file by
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        if picture := output.get("data", {}).get("image/png"):
            alt = output.metadata.get("image/png", {}).get("alt", "")
            texts[hashlib.sha256(b64decode(picture)).hexdigest()] = alt
    for image in tree.findall(nodes.image):
        if (digest := Path(image["uri"]).stem) in texts:
            image["alt"] = texts[digest]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("doctree-read", _add_alt_texts)
