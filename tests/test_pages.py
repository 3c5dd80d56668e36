"""The pages beside the notebooks: whole, linked, without results; the code on them runs."""

import contextlib
import io
import re
import shlex
from urllib.parse import unquote

import nbformat
import pytest
from typer.main import get_command

from lepton_lib.cases import load_case
from lepton_lib.cli import app
from lepton_lib.site import PARTS, ROOT
from tests.prose import numbers

FOLDER = ROOT / "lepton_lib" / "site" / "pages"
PAGES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in FOLDER.glob("*.md")
    if path.stem not in {"architecture", "runs_at_scale"}
}
every_page = pytest.mark.parametrize("name", PAGES)
NOTEBOOKS = {
    path.relative_to(ROOT).as_posix(): "\n\n".join(
        cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"
    )
    for path in ROOT.glob("notebooks/**/*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
}
CODE = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in ROOT.glob("lepton_lib/**/*.py")
}
ENTRY = re.compile(r"^- \*\*([^*]+)\*\*: (.+) \[[^\]]+\]\(/([^)]+)\)$", re.MULTILINE)
GLOSSARY = {term: (text, where) for term, text, where in ENTRY.findall(PAGES["glossary"])}
SOURCE = re.compile(
    r"^- (?P<authors>[^:]+): \*(?P<title>[^*]+)\*.* \((?P<year>\d{4})\)\. "
    r"(?:\[doi:(?P<doi>.+)\]\(https://doi\.org/(?P<link>\S+)\)|.*No DOI\.)$"
)
SOURCES = [line for line in PAGES["bibliography"].splitlines() if line.startswith("- ")]
# where a text gives the year of a source: "(Efron, 1979)", "Annals of Statistics 7 (1979)"
CITED = re.compile(r"(?:, |\()((?:18|19|20)\d\d)(?=[),.:;]|, )|\b((?:19|20)\d\d)(?=, doi|, arXiv)")


def parts(term):
    """The terms of a line such as "False alarm, miss" or "Champion and challenger"."""
    return {part.strip().lower() for part in re.split(r", | and ", term)}


@every_page
def test_every_page_is_in_the_contents(name):
    """The site names each page once, so that the reader finds it."""
    assert [page for part in PARTS.values() for page in part].count(f"{name}.md") == 1


@every_page
def test_links_lead_somewhere_on_github_too(name):
    """Each link is a page beside this one, or a file of the repository from its root."""
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)\)", PAGES[name]):
        if not target.startswith("/reference/"):  # written while the site is built
            place = ROOT / target[1:] if target.startswith("/") else FOLDER / target
            assert place.is_file(), target


@every_page
def test_every_lepton_command_is_understood(name):
    """Each `lepton` command on a page parses."""
    for line in re.findall(r"(?:`|^)(?:\.venv/bin/)?lepton ([^`\n]+)", PAGES[name], re.MULTILINE):
        words = shlex.split(line)
        get_command(app).commands[words[0]].make_context(words[0], words[1:])


@every_page
def test_no_page_states_a_result(name):
    """A number that a run gives stands in the notebook that gives it; references have their own."""
    text = re.sub(r"```toml\n.*?```", "", PAGES[name], flags=re.DOTALL)
    if name == "bibliography":
        text = "\n".join(line for line in text.splitlines() if line not in SOURCES)
    questions = name == "ladder"  # made up for the question, and computed beside it
    assert questions or numbers(text) == []


@pytest.mark.parametrize("where", NOTEBOOKS)
def test_the_glossary_has_every_term(where):
    """Each term at the end of a notebook is there, linked to a notebook that lists it."""
    known = {part: text[1] for term, text in GLOSSARY.items() for part in parts(term)}
    for term in terms(where):
        for part in parts(term):
            assert part in known, f"glossary.md lacks {term!r} of {where}"
            listed = {each.lower() for other in terms(known[part]) for each in parts(other)}
            assert part in listed, f"glossary.md links {part!r} to {known[part]}, not to {where}"


def terms(where):
    """The terms that a notebook lists under its key points."""
    section = re.search(r"^\*\*Terms\*\*.*?(?=^\*\*|^#|\Z)", NOTEBOOKS[where], re.M | re.S)
    return re.findall(r"^- \*\*([^*]+)\*\*", section[0], re.MULTILINE) if section else []


@pytest.mark.parametrize("term", GLOSSARY)
def test_a_term_is_used_where_its_link_leads(term):
    """The notebook that a term's line links to uses the word."""
    prose = NOTEBOOKS[GLOSSARY[term][1]].lower()
    for word in re.findall(r"\w+", term.lower()):
        assert word.removesuffix("ing") in prose, f"{GLOSSARY[term][1]} doesn't use {word!r}"


@pytest.mark.parametrize("where", NOTEBOOKS)
def test_the_notation_has_every_greek_letter(where):
    """Each Greek letter in a notebook's formulas, and each sign of calculus, has a line."""
    formulas = " ".join(re.findall(r"\$\$.*?\$\$|\$[^$\n]+\$", NOTEBOOKS[where], re.DOTALL))
    greek = "alpha|beta|gamma|delta|varepsilon|epsilon|eta|theta|lambda|mu|pi|rho|sigma|tau|phi|psi"
    signs = set(re.findall(rf"\\(?:{greek}|omega|ell|nabla|partial|infty|sup|arg)\b", formulas))
    assert {sign for sign in signs if sign not in PAGES["notation"]} == set()


def test_every_line_of_the_glossary_is_an_entry_once():
    """Each line has a term, a text and a link, and no term has two lines."""
    lines = [line for line in PAGES["glossary"].splitlines() if line.startswith("- ")]
    assert len(lines) == len(GLOSSARY) == len({term.lower() for term in GLOSSARY})


@pytest.mark.parametrize("line", SOURCES)
def test_every_source_has_authors_title_and_year(line):
    """Each entry names its authors, title and year, and has a DOI or says so if not."""
    found = SOURCE.match(line)
    assert found, line
    assert found["doi"] is None or unquote(found["link"]) == found["doi"].replace("\\<", "<")


@pytest.mark.parametrize(
    "where", [*NOTEBOOKS, *(name for name in CODE if CITED.search(CODE[name]))]
)
def test_the_bibliography_has_every_source(where):
    """Each source with a year in a notebook or a docstring is there, by first author and year."""
    found = [match for line in SOURCES if (match := SOURCE.match(line))]
    known = {(m["authors"].split(",")[0].removesuffix(" and others"), m["year"]) for m in found}
    text = re.sub(r"\s+(?:# )?", " ", (NOTEBOOKS | CODE)[where])
    for cited in CITED.finditer(text):
        before, year = text[max(0, cited.start() - 250) : cited.start()], cited[1] or cited[2]
        names = [author.rpartition(" ")[2] for author, of in known if of == year]
        assert any(re.search(rf"\b{name}\b", before) for name in names), f"{before[-120:]} {year}"


@pytest.mark.parametrize("where", NOTEBOOKS)
def test_the_bibliography_has_every_doi(where):
    """Each DOI and arXiv number of a notebook is in the bibliography."""
    named = re.findall(r"(?:doi:|arXiv[:.])(\S+?)(?=[.,;]?(?:\s|$))", NOTEBOOKS[where])
    assert [doi for doi in named if doi not in PAGES["bibliography"]] == []


def test_the_answers_of_the_self_test_are_right():
    """Ten questions, each with its answer folded away; its code prints what the answer says."""
    questions = PAGES["ladder"].split("\n### Question ")[1:]
    assert len(questions) == 10
    for question in questions:
        shown, _, folded = question.partition("<details><summary>Answer</summary>\n\n")
        (code,) = re.findall(r"```python\n(.*?)```", shown, re.DOTALL)
        (answer,) = re.findall(r"```text\n(.*?)```", folded, re.DOTALL)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, {})
        assert printed.getvalue() == answer, question.partition("\n")[0]
        assert "\n\n</details>\n" in folded


@pytest.mark.parametrize("name", ["education", "city"])
def test_a_drafted_case_loads(name, tmp_path):
    """The draft on the page is a whole case.toml; only the data and their hash are to be added."""
    (draft,) = re.findall(r"```toml\n(.*?)```", PAGES[name], re.DOTALL)
    (tmp_path / name).mkdir()
    (tmp_path / name / "case.toml").write_text(draft, encoding="utf-8")
    case = load_case(tmp_path / name, verify=False)
    assert case.inputs
    assert case.charter.criteria
