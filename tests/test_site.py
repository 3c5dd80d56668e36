"""The site of the course: complete, linked, searchable, and whole without a network."""

import functools
import importlib
import json
import re
import shutil
import tomllib
from pathlib import Path
from types import FunctionType
from urllib.parse import unquote, urldefrag
from xml.etree import ElementTree

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from snowballstemmer import stemmer

from lepton_lib.errors import RunError
from lepton_lib.site import ROOT, build, reference
from lepton_lib.site.reference import _meanings, case_reference
from tests.test_layers import PARTS

NOTEBOOKS = sorted(
    path for path in ROOT.glob("notebooks/**/*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
pytestmark = pytest.mark.no_cover
ELSEWHERE = re.compile(r"(?:https?:)?//")


@functools.cache
def soup(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def page_of(out, path):
    return out / path.relative_to(ROOT).with_suffix(".html")


def test_every_notebook_has_its_page_in_the_contents(site):
    """Each notebook and each case's card has a page; the contents name them all, in order."""
    out, pages = site
    wanted = [str(path.relative_to(ROOT).with_suffix("")) for path in NOTEBOOKS]
    assert [page for page in pages if page.startswith("notebooks/")] == wanted
    assert {path.parent.name for path in ROOT.glob("datasets/*/case.toml")} <= {
        page.split("/")[-2] for page in pages if page.startswith("datasets/")
    }
    for page in (out / f"{name}.html" for name in ("index", *pages)):
        links = [link["href"] for link in soup(page).select(".sidebar-tree a.reference.internal")]
        named = [page if link == "#" else (page.parent / link).resolve() for link in links]
        assert named == [(out / f"{name}.html").resolve() for name in pages]


def test_next_and_previous_lead_through_the_whole_course(site):
    """From the front page *next* reaches every page in order, *previous* leads back."""
    out, pages = site
    expected = [out / f"{page}.html" for page in ("index", *pages)]
    for kind, way in (("next-page", expected), ("prev-page", expected[::-1])):
        at = way[0]
        for target in way[1:]:
            at = (at.parent / soup(at).select_one(f"a.{kind}")["href"]).resolve()
            assert at == target.resolve()
        assert soup(at).select_one(f"a.{kind}") is None


def test_every_link_resolves(site):
    """Every relative link, picture, script and style leads to a file, an anchor to an element."""
    out, _ = site
    pages = {path: soup(path) for path in out.rglob("*.html")}
    for page, content in pages.items():
        for element in content.select("[href], [src]"):
            reference, anchor = urldefrag(element.get("href") or element.get("src"))
            if not re.match(r"[a-z]+:", reference):
                target = (
                    (page.parent / unquote(reference.split("?")[0])).resolve()
                    if reference
                    else page
                )
                assert target.is_file(), f"{page.name}: {reference}"
                if anchor and element.name == "a" and target in pages:
                    assert pages[target].find(id=anchor), f"{page.name}: {reference}#{anchor}"


def test_nothing_comes_from_elsewhere(site):
    """No script, style, font or picture has an address on a network."""
    out, _ = site
    for page in out.rglob("*.html"):
        for element in soup(page).select("[src], link[href], [srcset], object[data]"):
            for name in ("src", "href", "srcset", "data"):
                assert not ELSEWHERE.match(element.get(name, "")), f"{page.name}: {element}"
    for style in out.rglob("*.css"):
        assert not re.findall(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")
        ), style.name


@every_notebook
def test_a_page_shows_the_stored_outputs(site, path):
    """Each text and table is on the page, and each picture, with the alt text stored beside it."""
    content = soup(page_of(site[0], path))
    outputs = [
        output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])
    ]
    text = " ".join(content.get_text().split())
    for output in outputs:
        if output.output_type == "stream":
            assert " ".join(output.text.split()) in text
    data = [output for output in outputs if "data" in output]
    alts = [output.metadata["image/png"]["alt"] for output in data if "image/png" in output.data]
    shown = [picture["alt"] for picture in content.select(".cell_output img")]
    assert shown == alts
    assert all(alts)
    assert len(content.select(".cell_output table.dataframe")) == sum(
        "dataframe" in o.data.get("text/html", "") for o in data
    )


@every_notebook
def test_formulas_are_typeset_by_the_site_itself(site, path):
    """A page with formulas loads the typesetter from the site and marks each formula for it."""
    prose = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    content = soup(page_of(site[0], path))
    if any("$$" in source for source in prose):
        assert content.select("script[src*='_static/tex-svg-full.js']")
        assert len(content.select("div.math")) == sum(source.count("$$") for source in prose) // 2


@every_notebook
def test_the_search_knows_every_notebook(site, path):
    """The longest word that only this notebook has leads to its page in the search index."""
    text = (site[0] / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))

    def words(notebook):
        prose = " ".join(
            cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "markdown"
        )
        return set(re.findall(r"(?<![\w$\\`-])[a-z]{6,}(?![\w$`-])", prose))

    others = set().union(*(words(other) for other in NOTEBOOKS if other != path))
    stem = stemmer("english").stemWord
    stems = {stem(word) for word in others}
    word = max(
        (word for word in words(path) if stem(word) not in stems),
        key=lambda word: (len(word), word),
    )
    found = (index["titleterms"] | index["terms"])[stem(word)]
    documents = [
        index["docnames"][number] for number in ([found] if isinstance(found, int) else found)
    ]
    assert str(path.relative_to(ROOT).with_suffix("")) in documents


def test_the_drawing_names_every_part(site):
    """The architecture page shows a drawing whose words are text, and which names each module."""
    (picture,) = soup(site[0] / "architecture.html").select("article img")
    drawing = ElementTree.parse(site[0] / picture["src"])
    words = {
        word
        for text in drawing.iter("{http://www.w3.org/2000/svg}text")
        for word in re.findall(r"\w+", text.text)
    }
    assert PARTS - {"__main__"} <= words
    assert picture["alt"]


def test_the_reference_of_a_case_has_every_key(site):
    """Each key of each section of the shipped cases is on the page, under its section's heading."""
    text = soup(site[0] / "reference" / "case.html").select_one("article")
    keys = {code.get_text() for code in text.select("td:first-child code")}
    headings = " ".join(heading.get_text() for heading in text.select("h2"))
    for path in ROOT.glob("datasets/*/case.toml"):
        case = tomllib.loads(path.read_text(encoding="utf-8"))
        assert set(case) <= keys
        for name, section in case.items():
            tables = section if isinstance(section, list) else [section]
            if isinstance(tables[0], dict):
                assert f"[{name}]" in headings
                assert set().union(*tables) <= keys, name


@pytest.mark.parametrize("name", reference.MODULES)
def test_the_reference_of_the_library_has_every_public_name(site, name):
    """Each public class and function of a module is on its page."""
    module = importlib.import_module(f"lepton_lib.{name}")
    own = (
        key
        for key, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and hasattr(value, "__name__")
    )
    public = getattr(module, "__all__", [key for key in own if not key.startswith("_")])
    page = soup(site[0] / "reference" / f"{name}.html")
    for key in public:
        value = getattr(module, key)
        if isinstance(value, type | FunctionType):
            assert page.find(id=re.compile(rf"^lepton_lib\.{name}\.(?:\w+\.)?{key}$")), key


def test_contributors_find_their_pages(site):
    """How to contribute and what has changed are on the site."""
    assert {"contributing", "CHANGELOG", "architecture", "reference/library"} <= set(site[1])


def course(folder: Path, *cells):
    """A repository with one notebook."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "datasets").mkdir()
    (folder / "README.md").write_text("# Course\n\n[00](notebooks/00.ipynb)\n")
    (folder / "datasets" / "README.md").write_text("# Data\n")
    shutil.copy(ROOT / "LICENSE", folder)
    language = {"language_info": {"name": "python"}}
    notebook = new_notebook(cells=[new_markdown_cell("# 00"), *cells], metadata=language)
    nbformat.write(notebook, folder / "notebooks" / "00.ipynb")
    return folder


def test_a_notebook_is_shown_as_it_lies(tmp_path):
    """The page holds the stored output, even where running the cell would give another."""
    output = new_output("stream", name="stdout", text="forty-two")
    build(
        tmp_path / "out",
        course(tmp_path / "root", new_code_cell("1 / 0", outputs=[output], execution_count=1)),
    )
    text = soup(tmp_path / "out" / "notebooks" / "00.html").get_text()
    assert "forty-two" in text
    assert "ZeroDivisionError" not in text


def test_flaws_stop_the_build_and_leave_the_old_site(tmp_path):
    """A broken link, a missing picture or a skipped heading level fails; the old site stays."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("old")
    flaws = new_markdown_cell("[01](01_gone.ipynb)\n\n![a curve](images/gone.png)\n\n### Too deep")
    with pytest.raises(RunError) as raised:
        build(tmp_path / "out", course(tmp_path / "root", flaws))
    for complaint in ("01_gone.ipynb", "images/gone.png", "Non-consecutive header"):
        assert complaint in str(raised.value)
    assert (tmp_path / "out" / "index.html").read_text() == "old"


def test_the_reference_of_a_case_explains_every_key():
    """No row of the page lacks a meaning, and no meaning belongs to a key that is gone."""
    page = case_reference()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows if row[-1].strip(" |") == ""] == []
    keys = {row[0].strip("| `") for row in rows}
    assert {key for keys_of in _meanings().values() for key in keys_of} <= keys
