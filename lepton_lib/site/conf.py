"""Sphinx's configuration: no page is executed, and a reader's browser fetches nothing."""

from importlib.metadata import distribution
from pathlib import Path

project = "From research to application"
html_title = project
author = "the authors of the course"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
# it would fetch pages, which a browser refuses on a page opened from the disk
html_show_search_summary = False
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.mathjax",
    "lepton_lib.site.pictures",
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
nb_number_source_lines = False

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
