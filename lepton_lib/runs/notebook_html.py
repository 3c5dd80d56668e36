"""An executed notebook as an HTML page that loads nothing, with formulas in MathML.

Knows nbconvert; doesn't know runs.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from markupsafe import Markup, escape

from lepton_lib.utils import render

_REMOTE = re.compile(
    r"<(script|link)\b[^>]*\b(?:src|href)\s*=\s*[\"']?(?:https?:)?//[^>]*>(?:\s*</script>)?", re.I
)
# A dollar that opens a formula stands before no blank: "$5, and $6" is no formula.
_INLINE = r"(?<![$\\])\$(?=[^\s$])(?P<math_inline_tex>(?:[^$\\]|\\.)+?)(?<!\s)\$(?!\d)"


def notebook_page(nb: Any, *, title: str, folder: Path) -> str:
    """An executed notebook of a run as one HTML page; diagrams in its folder are put into it."""
    return render("runs/templates/notebook.html", title=title, cells=cells_to_html(nb, folder))


def cells_to_html(nb: Any, folder: Path) -> Markup:
    """A notebook's cells and outputs as HTML without remote scripts and styles."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import TagRemovePreprocessor

    quiet = logging.Logger("nbconvert", logging.CRITICAL)
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True, log=quiet)
    exporter.register_preprocessor(TagRemovePreprocessor(remove_input_tags={"hide-input"}), True)
    exporter.register_filter("markdown2html", partial(markdown_to_html, folder=folder))
    content, _ = exporter.from_notebook_node(nb)
    return Markup(_REMOTE.sub("", content))


def markdown_to_html(source: str, folder: Path | None = None) -> Markup:
    """Markdown as HTML with formulas in MathML; code and amounts of dollars are no formulas.

    Pictures that lie in the folder are embedded.
    """
    from nbconvert.filters.markdown_mistune import (
        IPythonRenderer,
        MarkdownWithMath,
        MathInlineParser,
    )

    class Renderer(IPythonRenderer):
        def _src_to_base64(self, src: str) -> str | None:
            if src.startswith("../diagrams/") and folder is not None:  # beside a lesson's folder
                beside = IPythonRenderer(embed_images=True, path=str(folder.parent))
                return str(beside._src_to_base64(src.removeprefix("../")))
            return super()._src_to_base64(src)

        def block_math(self, body: str) -> str:
            return _mathml(body, "block")

        def inline_math(self, body: str) -> str:
            return _mathml(body, "inline")

    class Inline(MathInlineParser):
        SPECIFICATION: ClassVar[dict[str, str]] = {
            **MathInlineParser.SPECIFICATION,
            "inline_math_tex": _INLINE,
        }
        # code comes before formulas
        DEFAULT_RULES: ClassVar[tuple[str, ...]] = tuple(
            dict.fromkeys(("codespan", *MathInlineParser.DEFAULT_RULES))
        )

    renderer = Renderer(
        escape=False, exclude_anchor_links=True, embed_images=folder is not None, path=str(folder)
    )
    return Markup(MarkdownWithMath(renderer, inline=Inline()).render(source))


def _mathml(tex: str, display: str) -> str:
    from latex2mathml.converter import convert

    try:
        return convert(tex.replace(r"\arg", r"\operatorname{arg}"), display=display)
    except Exception:  # wrong TeX fails in many ways; it is shown as it was written
        return f"<code>{escape(tex)}</code>"
