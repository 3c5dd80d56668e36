"""`check_notebook` checks a notebook's file in seconds, without running it.

It knows the course's rules for notebooks. `tests.strict` checks whether the outputs are true.
"""

import ast
import base64
import io
import json
import re
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
from PIL import Image

from lepton_lib.artefacts import OUTPUTS, STEPS
from lepton_lib.errors import ParameterError
from lepton_lib.runs import read_parameters
from lepton_lib.runs.notebooks import SKIPPED_TAGS
from lepton_lib.runs.readings import COMMENT, bindings
from tests.prose import numbers

ROOT = Path(__file__).resolve().parents[1]
TAGS = {"parameters", "exercise", "lesson", "reading", "measured", "hide-input"}
TAGS |= {"raises-exception"}
HIDDEN = {"source_hidden": True}  # JupyterLab folds such a cell's code
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# the kinds of output there may be
COMPARED = {"text/plain", "text/html", "text/markdown", "text/latex", "image/png"}
# What shows a reader its arguments, and the keywords whose values are shown.
TELLS = {"print", "display", "Markdown", "HTML", "text", "annotate"}
TELLS |= {"set_title", "suptitle", "set_xlabel", "set_ylabel"}
TEXTS = {"alt", "title", "label", "xlabel", "ylabel", "labels"}
# The run's files, and the methods by which a step declares that it reads or writes one.
FILES = {name for names in OUTPUTS.values() for name in names}
DECLARES = {"input", "path", "read_json", "write_json"}
PANDAS = "<div>\n<style scoped>"  # how a DataFrame's HTML begins
OWNER = "|".join(
    re.escape(name) for name in (Path.home().name, socket.gethostname()) if len(name) > 4
)
MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
# What no stored output may hold, because another machine or another day would print something else.
VOLATILE = {
    "a path": r"(?<![\w.~])/(?:home|root|work|tmp|usr|opt|var|Users|private)/\S+|[A-Z]:\\\\?Users",
    "the name of a user or a machine": rf"\b(?:{OWNER})\b" if OWNER else r"(?!)",
    "an address of an object": r"\b0x[0-9a-f]{6,}",
    "a date of these days": r"\b20(?:2[4-9]|3\d)-\d\d-\d\d\b"
    rf"|\b(?:{MONTHS})[a-z]* \d?\d?,? ?20(?:2[4-9]|3\d)\b"
    r"|\b\d?\d[/.]\d?\d[/.]20(?:2[4-9]|3\d)\b",
    "a duration": r"\b\d+(?:\.\d+)? ?(?:ms|µs|us|ns|s|secs?|seconds|minutes?|it/s|s/it|batch/s)\b"
    r"|\b\d\d:\d\d<"
    r"|\b\d+m ?\d+s\b|\b\d+:\d\d:\d\d\.\d",
    "more digits than a reader can use": r"\b\d*\.\d{10,}\b",
    "a port": r"(?:127\.0\.0\.1|localhost):\d+",
    "an address of a machine": r"\b(?!127\.|0\.)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b",
}


def check_notebook(path):
    """List a notebook's problems, one sentence each, which begins with the cell's id.

    A copy is checked as if it lay where the notebook of that name lies in the repository.
    """
    text = path.read_text(encoding="utf-8")
    try:
        with warnings.catch_warnings():
            # nbformat only warns of an id that is missing or there twice
            warnings.simplefilter("error")
            nbformat.validate(content := json.loads(text))
            notebook = nbformat.reads(text, 4)
    except (ValueError, nbformat.ValidationError, Warning) as error:
        return [f"notebook: isn't valid nbformat: {str(error).splitlines()[0]}"]
    home = next((place.parent for place in (ROOT / "notebooks").rglob(path.name)), path.parent)
    problems = [*check_frame(content), *check_parameters(path), *check_reading(notebook)]
    problems += [*check_counts(notebook), *check_places(notebook), *check_ruff(path, home)]
    for cell in notebook.cells:
        code = cell.cell_type == "code"
        checks = (check_code, check_outputs) if code else (check_prose, check_links)
        for check in (check_cell, *checks):
            rest = (notebook, home) if check is check_links else ()
            problems += [f"{cell.id}: {problem}" for problem in check(cell, *rest)]
    return problems


def check_frame(content):
    """The same format and metadata everywhere."""
    if (content["nbformat"], content["nbformat_minor"]) != (4, 5) or content[
        "metadata"
    ] != METADATA:
        yield f"notebook: got other metadata than {METADATA} in nbformat 4.5"


def check_parameters(path):
    """One cell of parameters, each with a default and a comment, and a step's shared ones."""
    try:
        parameters = read_parameters(path)
    except ParameterError as error:
        yield f"parameters: {error}"
        return
    shared = {"case", "run_dir", "seed"} if path.stem in STEPS else {"run_dir", "seed"}
    for name in shared - set(parameters):
        yield f"parameters: lacks {name!r}"
    for parameter in parameters.values():
        if not parameter.comment:
            yield f"parameters: {parameter.name!r} has no comment"


def check_reading(notebook):
    """Some cell reads each parameter before it is reassigned, not only to print or record it.

    Only names of the module count: an argument or a loop's variable of the same name is another
    variable.
    """
    unread, aside = {}, set()
    for cell in notebook.cells:
        try:
            tree = ast.parse(cell.source if cell.cell_type == "code" else "")
        except SyntaxError:
            continue
        if "parameters" in cell.metadata.get("tags", []):
            unread |= {node.id: True for node in ast.walk(tree) if isinstance(node, ast.Name)}
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "start":
                aside |= {
                    part
                    for word in node.keywords
                    if word.arg == "parameters"
                    for part in ast.walk(word)
                }
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                aside |= {part for argument in node.args for part in ast.walk(argument)}
        names = [node for node in _of_module(tree) if node not in aside]
        for node in sorted(names, key=lambda node: (node.lineno, isinstance(node.ctx, ast.Store))):
            if unread.get(node.id):
                unread[node.id] = isinstance(node.ctx, ast.Store) and None
    for name in (name for name, state in unread.items() if state is not False):
        yield f"parameters: {name!r} is read by no cell"


def _of_module(node, own=frozenset()):
    """Yield the names below a node that are not bound by a function or a comprehension."""
    if isinstance(node, ast.Name):
        if node.id not in own:
            yield node
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        given = node.args
        for default in filter(None, [*given.defaults, *given.kw_defaults]):
            yield from _of_module(default, own)
        bound = {
            arg.arg
            for arg in [
                *given.posonlyargs,
                *given.args,
                *given.kwonlyargs,
                given.vararg,
                given.kwarg,
            ]
            if arg
        }
        body = node.body if isinstance(node.body, list) else [node.body]
        own |= bound | {part.id for line in body for part in _stored(line)}
        for part in body:
            yield from _of_module(part, own)
        return
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        own |= {part.id for turn in node.generators for part in _stored(turn.target)}
    for part in ast.iter_child_nodes(node):
        yield from _of_module(part, own)


def _stored(node):
    return [
        part
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    ]


def check_counts(notebook):
    """Run once from top to bottom: the execution counts go from 1 to n."""
    for k, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        if cell.execution_count is None:
            yield f"{cell.id}: was never run"
        elif cell.execution_count != k:
            run = f"was run as number {cell.execution_count}"
            yield f"{cell.id}: {run}, but is number {k} from the top"


def check_ruff(path, home):
    """The linter's findings, under the name that the notebook has in the repository."""
    words = [sys.executable, "-m", "ruff", "check", "--quiet", "--output-format", "concise"]
    words += ["--stdin-filename", str(home / path.name), "-"]
    done = subprocess.run(
        words, input=path.read_bytes(), capture_output=True, cwd=ROOT, check=False
    )
    for line in (done.stdout + done.stderr).decode().splitlines():
        yield f"ruff: {line.partition('.ipynb:')[2] or line}"


def check_cell(cell):
    """A readable id that isn't made by a machine, and no metadata but the known tags."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", cell.id) or re.fullmatch(
        r"[0-9a-f]{8}(-[0-9a-f]+)*", cell.id
    ):
        yield "has an id that isn't made of words"
    tags = set(cell.metadata.get("tags", []))
    known = {"tags"} | ({"claims"} if cell.cell_type == "code" else set())
    known |= {"jupyter"} if "hide-input" in tags else set()
    if other := (set(cell.metadata) - known) | (tags - TAGS):
        yield f"has other metadata or tags than the known ones: {', '.join(sorted(other))}"
    if "hide-input" in tags and cell.metadata.get("jupyter") != HIDDEN:
        yield f"is tagged hide-input without the metadata jupyter = {HIDDEN}"


def check_code(cell):
    """A cell is at most 25 lines of plain Python, hides no output, and writes no result by hand."""
    lines = cell.source.rstrip().splitlines() or [""]
    if not cell.source.strip() or len(lines) > 25:
        yield f"has {len(lines)} lines" if cell.source.strip() else "is empty"
    if re.sub(r"#[^\"']*$", "", lines[-1]).rstrip().endswith(";"):
        yield "hides its output with a semicolon"
    if re.search(r"#\s*(?:NBVAL_|PYTEST_VALIDATE_)", cell.source):
        yield "asks not to be compared"
    if found := re.search(r"\b(?:get_ipython|os\.system)\(", cell.source):
        yield f"leaves Python by {found.group()}"
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:
        yield "isn't plain Python: a magic, or a shell command?"
        return
    yield from _hidden(tree)
    for text in _told(tree):
        for number in numbers(text):
            yield f"states {number!r} in a constant text; put the run's value there"


def _hidden(tree):
    """What a cell does without its reader's or the run's notice."""
    declared = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            arguments = [*node.args, *(word.value for word in node.keywords)]
            if name == "suppress":
                yield "suppresses an exception: catch it and show what it says"
            if name in ("simplefilter", "filterwarnings") and len(arguments) < 2:
                yield "silences every warning: name the message"
            if name in DECLARES:
                declared |= {id(part) for argument in arguments for part in ast.walk(argument)}
        elif isinstance(node, ast.ExceptHandler):
            if node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException"):
                yield "catches every exception: name the one that is meant"
            elif all(isinstance(line, ast.Pass) for line in node.body):
                yield "swallows an exception: show what it says"
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text in FILES and id(node) not in declared:
            yield f"names {text!r} outside of the step's methods, so no run declares it"


def _told(tree):
    """Yield the constants that a reader sees: printed texts, titles, labels, alternative texts."""
    last = tree.body[-1].value if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    if isinstance(last, ast.Constant | ast.JoinedStr):
        yield from _constants(last)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            texts = call.args if name in TELLS else []
            for part in [
                *texts,
                *(word.value for word in call.keywords if word.arg in TEXTS),
            ]:
                yield from _constants(part)
                if isinstance(part, ast.Constant) and isinstance(part.value, float):
                    yield str(part.value)


def _constants(node):
    """Yield an expression's constant texts and numbers, without keys, formats and patterns."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Constant):
        yield str(node.value.value)
    # a method of a text, as in ", ".join([...]), or a function that shows its arguments
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Constant):
            yield from _constants(node.func.value)
        for part in node.args if name in TELLS | {"join", "format"} else []:
            yield from _constants(part)
    elif not isinstance(node, ast.Subscript | ast.Compare | ast.FormattedValue | ast.Attribute):
        for part in ast.iter_child_nodes(node):
            yield from _constants(part)


def check_outputs(cell):
    """Outputs of the kinds that are compared, which hold nothing that changes by itself."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    meant = "raises-exception" in cell.metadata.get("tags", [])
    if errors and not meant:
        yield f"shows an error that isn't meant: {errors[0].ename}"
    if meant and not errors:
        yield "is tagged raises-exception, and shows no error"
    for error in errors:
        if error.traceback != [f"{error.ename}: {error.evalue}"]:
            yield "shows a traceback that isn't the error's own line, as `make notebooks` stores it"
    for output in cell.outputs:
        data = output.get("data", {})
        if output.get("name") == "stderr":
            yield f"writes to stderr: {output.text[:200]}"
        if other := set(data) - COMPARED:
            yield f"has an output that isn't compared: {', '.join(sorted(other))}"
        texts = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
        texts += [value for kind, value in data.items() if kind.startswith("text/")]
        if sum(map(len, texts)) > 200_000:
            yield f"prints {sum(map(len, texts)):,} characters"
        for text in texts:
            for what, pattern in VOLATILE.items():
                if found := re.search(pattern, text):
                    yield f"prints {what}: {found.group()}"
        if data.get("text/html", "").startswith(PANDAS) and "\ntypes: " not in data.get(
            "text/plain", ""
        ):
            remedy = "`plots.use_style()` and `make notebooks` write them"
            yield f"shows a table without its types: {remedy}"
        if "image/png" in data:
            yield from check_picture(output)


def check_picture(output):
    """A picture has at most 60 KB, more than one colour, alternative text, and its data as text."""
    try:
        png = base64.b64decode(output.data["image/png"])
        with Image.open(io.BytesIO(png)) as picture:
            if picture.convert("RGBA").getcolors(1) is not None:
                yield "shows a picture of one colour"
    except (OSError, ValueError, SyntaxError):
        yield "stores a picture that can't be decoded"
        return
    if len(png) > 60_000:
        yield f"shows a picture of {len(png)} bytes, more than 60 KB"
    alt, text = (
        output.metadata.get("image/png", {}).get("alt", ""),
        output.data.get("text/plain", ""),
    )
    if len(alt) <= 20 or not text.startswith(f"Figure: {alt}\n"):
        remedy = "end the cell with `plots.show(figure, alt=...)`"
        yield f"shows a picture without alternative text: {remedy}"
    panels = re.split(r"^  (?=\[)", text, flags=re.MULTILINE)[1:]
    if not panels or not all(re.search(r"\n    .*(?:n=[1-9]|texts: )", panel) for panel in panels):
        yield "shows a figure without data, or axes with nothing on them"
    if found := re.search(
        r"^    (?:area|bars|image|line|mesh|points|steps)\b.*: empty(?: \| empty)?$",
        text,
        re.MULTILINE,
    ):
        yield f"shows a figure in which something is empty:{found.group()}"
    if found := re.search(r"^    .*, hidden$", text, re.MULTILINE):
        yield f"draws something that can't be seen:{found.group()}"


def check_prose(cell):
    """A number in Markdown that no run holds to the truth is refused; see `tests.prose`."""
    reading = "reading" in cell.metadata.get("tags", [])
    for number in numbers(cell.source, reading=reading):
        yield f"states {number!r} in prose, which no run can hold to the truth"
    if reading and not bindings(cell):
        yield "is a reading that binds nothing to the run"
    if not reading and COMMENT.search(cell.source):
        yield "has a comment, which only a reading has"


def check_places(notebook):
    """A reading of a lesson's cell is a lesson, too; readings of the loop name their case."""
    lesson, ran = False, False
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        if cell.cell_type == "code":
            lesson, ran = bool(tags & SKIPPED_TAGS), True
        elif "reading" in tags:
            if not ran:
                yield f"{cell.id}: reads what no cell has run"
            if lesson and "lesson" not in tags:
                yield f"{cell.id}: reads a cell that a pipeline leaves out: tag it lesson, too"


def check_links(cell, notebook, home):
    """Links lead to existing files or headings of the notebook; a picture is a diagram."""
    pictures = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL)
    pictures = re.sub(r"!\[[^\]]{20,}\]\((?:\.\./)*diagrams/[a-z0-9-]+\.svg\)", "", pictures)
    if re.search(r"!\[|<img\b", pictures):
        yield "shows a picture that is neither made by a code cell nor a diagram with a text"
    prose = "\n\n".join(other.source for other in notebook.cells if other.cell_type == "markdown")
    headings = {
        heading.replace(" ", "-") for heading in re.findall(r"^#+ +(.+?)\s*$", prose, re.MULTILINE)
    }
    for target in re.findall(
        r"\]\(([^)\s]+)[^)]*\)", re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL)
    ):
        file, _, part = target.partition("#")
        if not re.match(r"[a-z]+:", target) and not (home / file).exists():
            yield f"links to {file}, which isn't there"
        if not file and part not in headings:
            yield f"links to #{part}, which is no heading"
