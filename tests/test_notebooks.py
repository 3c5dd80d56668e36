"""The notebooks as they lie in the repository: well made, true to a fresh run, and the same as a pipeline."""

import ast
import base64
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from lepton_lib.artefacts import STEPS
from lepton_lib.runs import read_parameters
from tests import offline

NOTEBOOKS = sorted(
    path for path in (offline.ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
TAGS = {"parameters", "exercise", "lesson", "raises-exception"}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What no stored output may hold, because another machine or another day would print something else.
VOLATILE = {
    "a path": re.compile(r"(?<![\w.~])/(?:home|root|work|tmp|usr|opt|var|Users|private)/\S+|[A-Z]:\\\\Users"),
    "an address of an object": re.compile(r"\bat 0x[0-9a-f]{6,}"),
    "today's kind of date": re.compile(r"\b20(?:2[4-9]|3\d)-\d\d-\d\d\b"),
    "a duration": re.compile(r"\b\d+(?:\.\d+)? ?(?:ms|µs|seconds|it/s|s/it|batch/s)\b"),
    "a port": re.compile(r"127\.0\.0\.1:\d+"),
}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_loop_is_complete():
    """The notebooks of the loop are there, in their order."""
    assert [path.stem for path in NOTEBOOKS if path.parent.name == "notebooks"] == list(STEPS)


@every_notebook
def test_notebook_is_valid_and_uniform(path):
    """A notebook is valid nbformat 4.5 with nothing but the common metadata."""
    content = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(content)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"] == METADATA


@every_notebook
def test_notebook_was_run_from_top_to_bottom(path):
    """Execution counts go from 1 to n, no cell is empty, and none shows an error that isn't meant."""
    cells = code_cells(nbformat.read(path, 4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert cell.source.strip(), f"{cell.id} is empty"
        if "raises-exception" not in cell.metadata.get("tags", []):
            assert not [o for o in cell.outputs if o.output_type == "error"], f"{cell.id} shows an error"


@every_notebook
def test_cells_are_named_tagged_and_short(path):
    """Ids are readable and unique, tags are the known ones, cells hold at most 25 lines and no magic."""
    cells = nbformat.read(path, 4).cells
    ids = [cell.id for cell in cells]
    assert len(set(ids)) == len(ids)
    for cell in cells:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", cell.id), cell.id
        assert set(cell.metadata) <= {"tags"}, cell.id
        assert set(cell.metadata.get("tags", [])) <= TAGS, cell.id
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            assert len(lines) <= 25, f"{cell.id} has {len(lines)} lines"
            assert not lines[-1].rstrip().endswith(";"), f"{cell.id} hides its output from comparison"
            ast.parse(cell.source)  # no magic, no shell


@every_notebook
def test_parameters_are_plain_literals(path):
    """There is one cell of parameters, each with a default and a comment; the shared ones are among them."""
    parameters = read_parameters(path)
    assert {"case", "run_dir", "seed"} <= set(parameters)
    assert all(parameter.comment for parameter in parameters.values())


@every_notebook
def test_outputs_hold_nothing_that_changes_by_itself(path):
    """No stored output holds a path, an address, a date, a duration or a port, and none is on stderr."""
    for cell in code_cells(nbformat.read(path, 4)):
        for output in cell.outputs:
            assert output.get("name") != "stderr", f"{cell.id} writes to stderr: {output.text}"
            texts = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
            for what, pattern in VOLATILE.items():
                for text in texts:
                    found = pattern.search(text)
                    assert found is None, f"{cell.id} prints {what}: {found.group()}"


@every_notebook
def test_pictures_are_small_and_told_in_words(path):
    """A picture has at most 60 KB, an alternative text, and its data as text, which is what a comparison sees."""
    for cell in code_cells(nbformat.read(path, 4)):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(base64.b64decode(output.data["image/png"])) <= 60_000, cell.id
                alt = output.metadata["image/png"]["alt"]
                assert len(alt) > 20, cell.id
                text = output.data["text/plain"]
                assert text.startswith(f"Figure: {alt}"), cell.id
                assert "n=" in text, f"{cell.id} shows no data"


@every_notebook
def test_links_between_files_resolve(path):
    """Every relative link in the prose leads to a file."""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", cell.source):
                if not re.match(r"[a-z]+:", target):
                    assert (path.parent / target).exists(), f"{cell.id}: {target}"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the notebooks beside an empty place for runs, as after a fresh clone."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(offline.ROOT / "notebooks", folder / "notebooks")
    return folder


@pytest.mark.parametrize("step", STEPS)
def test_stored_outputs_are_what_a_fresh_run_gives(course, step):
    """Every stored text, table and figure's data comes out the same when the notebook runs again, with no network."""
    words = ["-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:xdist"]
    done = offline.run(sys.executable, *words, "-p", "no:cacheprovider", f"notebooks/{step}.ipynb", cwd=course)
    assert done.returncode == 0, done.stdout[-8000:]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A run folder after `lepton run loop` on credit: the lessons and exercises left out."""
    return loop(tmp_path_factory.mktemp("runs") / "credit", "credit")


def loop(folder, case, *parameters):
    words = [word for parameter in parameters for word in ("-p", parameter)]
    done = lepton("run", "loop", "--case", case, "--out", str(folder), *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def lepton(*words):
    return offline.run(sys.executable, "-m", "lepton_lib.cli", *words)


def steps(folder: Path):
    return json.loads((folder / "manifest.json").read_text())["steps"]


def test_a_pipeline_leaves_what_the_whole_notebooks_leave(course, pipeline):
    """Without lessons and exercises every file and metric of the loop is the same, but for the measured latency."""
    whole, lean = steps(course / "runs" / "credit"), steps(pipeline)
    assert list(whole) == list(lean) == list(STEPS)
    for step in STEPS:
        for name, digest in whole[step]["files"].items():
            if name != "service/latency.json":
                assert lean[step]["files"][name] == digest, name
        metrics = [
            {name: value for name, value in run[step]["metrics"].items() if not name.startswith("latency")}
            for run in (whole, lean)
        ]
        assert metrics[0] == metrics[1]


def test_a_pipeline_leaves_pages_to_read(pipeline):
    """After the loop there is an index and an executed page for each notebook, and none asks for the network."""
    pages = [pipeline / "index.html", *(pipeline / "notebooks" / f"{step}.html" for step in STEPS)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']https?:", text), page.name


def test_a_loop_that_is_done_is_not_done_again(pipeline):
    """The same command on a finished run folder changes no file of any step."""
    before = steps(pipeline)
    loop(pipeline, "credit")
    assert steps(pipeline) == before


@pytest.mark.parametrize("case", ["credit_tiers", "heart", "process_faults", "traffic"])
def test_the_loop_runs_on_every_case_and_heeds_its_parameters(tmp_path, case):
    """Two, three or nine classes or a number: the same notebooks end, and other epochs give another model."""
    folder = loop(tmp_path / case, case, "epochs=2")
    assert list(steps(folder)) == list(STEPS)
    before = steps(folder)["02_training"]["metrics"]["validation_loss"]
    done = lepton("run", "02_training", "--case", case, "--out", str(folder), "-p", "epochs=1", "-p", "seed=1")
    assert done.returncode == 0, done.stderr
    assert steps(folder)["02_training"]["metrics"]["validation_loss"] != before
