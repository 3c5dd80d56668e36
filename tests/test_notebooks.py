"""The repository's notebooks are well made, reproducible, and agree with a pipeline's run."""

import re
import shutil

import nbformat
import pytest

from lepton_lib.artefacts import STEPS
from lepton_lib.runs.notebooks import SKIPPED_TAGS
from lepton_lib.utils import SAME_BITS
from tests import offline
from tests.static_checks import check_notebook
from tests.strict import compare, run_strictly

NOTEBOOKS = sorted(
    path
    for path in (offline.ROOT / "notebooks").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
# Threads that wait sleep soon: where both cores are busy, those that spin take a hundred times as
# long.
ELSEWHERE = {name: "2" for name in SAME_BITS if name.endswith("_NUM_THREADS")}
ELSEWHERE |= {"GOMP_SPINCOUNT": "2000", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_the_loop_is_complete():
    """The loop's notebooks exist in their order, and none lies where no test runs it."""
    assert [path.stem for path in NOTEBOOKS if path.parent.name == "notebooks"] == list(STEPS)
    assert not [
        path
        for name in ("lepton_lib", "datasets", "tests")
        for path in (offline.ROOT / name).rglob("*.ipynb")
    ]


@every_notebook
def test_notebook_is_well_made(path):
    """A notebook's file passes all checks of form, cells, outputs, pictures, links and prose."""
    problems = check_notebook(path)
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the notebooks beside an empty place for runs, as after a fresh clone."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(offline.ROOT / "notebooks", folder / "notebooks")
    return folder


@pytest.fixture(scope="module")
def results(course):
    """Run all notebooks strictly: the failure and the seconds of each cell, by notebook."""
    paths = [course / path.relative_to(offline.ROOT) for path in NOTEBOOKS]
    before = sorted((course / "notebooks").rglob("*"))
    found = run_strictly(paths, cwd=course, **ELSEWHERE)
    assert sorted((course / "notebooks").rglob("*")) == before, "files among the notebooks"
    return found


@every_notebook
def test_stored_outputs_are_what_a_fresh_run_gives(results, path):
    """Two threads, another time zone and language, and no network give what is stored."""
    ids = {cell.id for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"}
    failures = [f"{name}: {text}" for name, (text, _) in results[path.stem].items() if text]
    assert not failures, "\n\n".join(failures)
    assert set(results[path.stem]) == {"file", *ids}


# Measured, or with the moment of packaging, which tells an older release from a newer one.
CHANGING = {"service/latency.json", "service/manifest.json", "service/manifest.sig"}


def test_the_test_rows_stay_shut_until_a_model_is_chosen(course, results):
    """01 makes the test rows, and 02 doesn't read them."""
    assert results
    read = offline.steps(course / "runs" / "credit")["02_training"]["read"]
    assert "data/validation.parquet" in read
    assert "data/test.parquet" not in read


def test_a_pipeline_leaves_what_the_whole_notebooks_leave(course, pipeline):
    """A pipeline without lessons leaves the same files and metrics, but for what always differs."""
    whole, lean = offline.steps(course / "runs" / "credit"), offline.steps(pipeline)
    assert list(whole) == list(lean) == list(STEPS)
    for step in STEPS:
        for name, digest in whole[step]["files"].items():
            if name not in CHANGING:
                assert lean[step]["files"][name] == digest, name
        metrics = [
            {
                name: value
                for name, value in run[step]["metrics"].items()
                if not name.startswith("latency")
            }
            for run in (whole, lean)
        ]
        assert metrics[0] == metrics[1]


@pytest.mark.parametrize("step", STEPS)
def test_a_pipeline_shows_what_the_whole_notebooks_show(pipeline, step):
    """Without lessons and exercises, every other cell gives what is stored."""
    executed = nbformat.read(pipeline / "notebooks" / f"{step}.ipynb", 4)
    lean = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    stored = nbformat.read(offline.ROOT / "notebooks" / f"{step}.ipynb", 4)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    left = [cell for cell in code if not SKIPPED_TAGS & set(cell.metadata.get("tags", []))]
    assert len(left) > 5
    for cell in left:
        assert compare(cell.outputs, lean[cell.id].outputs) == "", cell.id


def test_a_pipeline_leaves_pages_to_read(pipeline):
    """The loop leaves an index and a page for each notebook, and none loads from the network."""
    pages = [pipeline / "index.html", *(pipeline / "notebooks" / f"{step}.html" for step in STEPS)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']https?:", text), (
            page.name
        )


def test_a_loop_that_is_done_is_not_done_again(pipeline):
    """The same command on a finished run folder changes no file of any step."""
    before = offline.steps(pipeline)
    offline.loop(pipeline, "credit")
    assert offline.steps(pipeline) == before
