"""The verifier finds faults planted in copies of a real notebook and passes everything else."""

import base64
import copy
import io
import json
from itertools import count

import nbformat
import pytest
from PIL import Image

from tests import offline
from tests.prose import numbers
from tests.static_checks import check_notebook
from tests.strict import run_strictly

NOTEBOOK = offline.ROOT / "notebooks" / "00_environment.ipynb"


@pytest.fixture(scope="module")
def original():
    return nbformat.read(NOTEBOOK, 4)


class Planting:
    """A copy of a notebook, to plant faults in."""

    def __init__(self, original):
        self.notebook = copy.deepcopy(original)

    def __getitem__(self, name):
        return next(cell for cell in self.notebook.cells if cell.id == name)

    def source(self, name, old, new):
        """Replace a part of a cell's source."""
        assert old in self[name].source
        self[name].source = self[name].source.replace(old, new)

    def stored(self, name, kind, old, new):
        """Replace a part of a cell's last stored output of that kind."""
        outputs = [output for output in self[name].outputs if kind in output.get("data", output)]
        place = outputs[-1].get("data", outputs[-1])
        assert old in place[kind]
        place[kind] = place[kind].replace(old, new)

    def prose(self, text):
        """Add a paragraph."""
        self["promise"].source += f"\n\n{text}"

    def swap(self, one, other):
        """Let two cells change places."""
        cells, ids = self.notebook.cells, [cell.id for cell in self.notebook.cells]
        i, j = ids.index(one), ids.index(other)
        cells[i], cells[j] = cells[j], cells[i]

    def add(self, name, source, **content):
        """Add a code cell at the end, by default one that was run and showed nothing."""
        number = sum(cell.cell_type == "code" for cell in self.notebook.cells) + 1
        content = {"execution_count": number, "id": name, **content}
        self.notebook.cells.append(nbformat.v4.new_code_cell(source, **content))

    def read(self, name, source):
        """Add a reading at the end."""
        cell = nbformat.v4.new_markdown_cell(source, id=name, metadata={"tags": ["reading"]})
        self.notebook.cells.append(cell)

    def write(self, path):
        """Write the copy to that path."""
        # nbformat would repair the planted fault
        path.write_text(json.dumps(self.notebook), encoding="utf-8")
        return path


def png(colours):
    """A picture of so many colours, as a notebook stores it."""
    picture, file = Image.new("RGB", (40, 30), "white"), io.BytesIO()
    for k in range(1, colours):
        picture.putpixel((k % 40, k // 40), (k % 256, k // 256, 7))
    picture.save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def output(kind, name="first-auc"):
    """A function that turns the first output of a cell into another kind."""
    return lambda nb: nb[name].outputs.__setitem__(0, nbformat.v4.new_output(**kind))


def picture(data):
    """A function that puts another PNG in the place of the first figure."""
    return lambda nb: nb["first-picture"].outputs[0].data.__setitem__("image/png", data)


STDERR = {"output_type": "stream", "name": "stderr"}
WIDGET = {
    "output_type": "display_data",
    "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}},
}
ERROR = {
    "output_type": "error",
    "ename": "ValueError",
    "evalue": "no",
    "traceback": ["ValueError: no"],
}
STATIC_FAULTS = {
    "stripped": (
        lambda nb: nb["seeded"].update(outputs=[], execution_count=None),
        "seeded: was never run",
    ),
    "new cell, never run": (
        lambda nb: nb.add("more", "1 + 1", execution_count=None),
        "more: was never run",
    ),
    "run in another order": (
        lambda nb: nb.swap("columns", "criteria"),
        "criteria: was run as number 24, but is number",
    ),
    "run twice": (
        lambda nb: nb["resume"].update(execution_count=99),
        "resume: was run as number 99",
    ),
    "unknown magic": (lambda nb: nb.add("magic", "%nosuch"), "magic: isn't plain Python"),
    "shell command": (lambda nb: nb.add("shell", "!false"), "shell: isn't plain Python"),
    "shell by the back door": (
        lambda nb: nb.add("shell", "get_ipython().system('false')"),
        "shell: leaves Python by",
    ),
    "syntax error": (
        lambda nb: nb.source("seeded", "first,", "first,,"),
        "seeded: isn't plain Python",
    ),
    "semicolon": (lambda nb: nb.add("quiet", "1 + 1;"), "quiet: hides its output with a semicolon"),
    "semicolon before a comment": (
        lambda nb: nb.add("quiet", "1 + 1;  # why"),
        "quiet: hides its output with",
    ),
    "asks not to be compared": (
        lambda nb: nb.source("seeded", "first", "# NBVAL_SKIP\nfirst"),
        "seeded: asks not",
    ),
    "tag of nbval": (
        lambda nb: nb["seeded"].metadata.update(tags=["nbval-skip"]),
        "seeded: has other metadata or tags",
    ),
    "reading without a binding": (
        lambda nb: nb.read("said", "It is good."),
        "said: is a reading that binds nothing",
    ),
    "number of a reading that isn't bound": (
        lambda nb: nb.read("said", "It is 0.9<!-- 0.9 -->, not 1."),
        "said: states '1' in prose",
    ),
    "binding outside a reading": (
        lambda nb: nb.prose("It is good<!-- True -->."),
        "promise: has a comment",
    ),
    "reading of a lesson": (
        lambda nb: [
            nb.add("why", "x = 1", metadata={"tags": ["lesson"]}),
            nb.read("said", "It is 1<!-- x -->."),
        ],
        "said: reads a cell that a pipeline leaves out",
    ),
    "long cell": (lambda nb: nb.add("long", "\n".join(["len('')"] * 26)), "long: has 26 lines"),
    "empty cell": (lambda nb: nb.add("empty", " "), "empty: is empty"),
    "error not meant": (output(ERROR), "first-auc: shows an error that isn't meant: ValueError"),
    "no error where one is meant": (
        lambda nb: nb["seeded"].metadata.update(tags=["raises-exception"]),
        "seeded: is tagged raises-exception, and shows no error",
    ),
    "traceback of another run": (
        lambda nb: nb.add(
            "meant",
            "1 / 0",
            metadata={"tags": ["raises-exception"]},
            outputs=[nbformat.v4.new_output(**ERROR | {"traceback": ["All went well: AUC 0.99"]})],
        ),
        "meant: shows a traceback that isn't the error's own line",
    ),
    "warning": (
        output(STDERR | {"text": "UserWarning: x"}),
        "first-auc: writes to stderr: UserWarning",
    ),
    "path": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "/tmp/tmpab12/x"),
        "first-auc: prints a path: /tmp/",
    ),
    "address": (
        lambda nb: nb.stored("columns", "text/plain", "a number", "<Case at 0x7f12ab34cd>"),
        "columns: prints an address of an object: 0x7f12ab34cd",
    ),
    "date": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "2026-11-23"),
        "first-auc: prints a date",
    ),
    "duration": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "took 3.1 ms"),
        "first-auc: prints a duration: 3.1 ms",
    ),
    "duration in whole seconds": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "trained in 1 s"),
        "first-auc: prints a duration: 1 s",
    ),
    "date in words": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "25 November 2026"),
        "first-auc: prints a date of these days: November 2026",
    ),
    "date with slashes": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "11/25/2026"),
        "first-auc: prints a date of these days: 11/25/2026",
    ),
    "address of a machine": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "192.0.2.7"),
        "first-auc: prints an address of a machine: 192.0.2.7",
    ),
    "tqdm's rate": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "412.07it/s"),
        "prints a duration: 412.07it/s",
    ),
    "port": (
        lambda nb: nb.stored("first-auc", "text", "AUC", "http://127.0.0.1:41233"),
        "first-auc: prints a port",
    ),
    "widget": (
        output(WIDGET),
        "first-auc: has an output that isn't compared: application/vnd.jupyter",
    ),
    "table without types": (
        lambda nb: nb.stored("columns", "text/plain", "types: ", ""),
        "columns: shows a table without its types",
    ),
    "empty picture": (picture(png(1)), "first-picture: shows a picture of one colour"),
    "cut picture": (picture(png(9)[:60]), "first-picture: stores a picture that can't be decoded"),
    "no picture": (picture(""), "first-picture: stores a picture that can't be decoded"),
    "big picture": (
        picture(base64.b64encode(base64.b64decode(png(9)) + bytes(60_000)).decode()),
        "first-picture: shows a picture of 60",
    ),
    "figure without data": (
        lambda nb: nb.stored("first-picture", "text/plain", "n=", "m="),
        "first-picture: shows a figure without data",
    ),
    "figure with marks alone": (
        lambda nb: nb.stored("first-picture", "text/plain", "n=", "at x = "),
        "first-picture: shows a figure without data",
    ),
    "figure with an empty panel": (
        lambda nb: nb.stored(
            "first-picture", "text/plain", "\n    ", "\n    points : empty | empty\n    "
        ),
        "first-picture: shows a figure in which something is empty",
    ),
    "figure with bare axes": (
        lambda nb: nb.stored("first-picture", "text/plain", "\n  [", "\n  [Left] x: , y: \n  ["),
        "first-picture: shows a figure without data, or axes with nothing",
    ),
    "picture without words": (
        lambda nb: nb["first-picture"].outputs[0].metadata.clear(),
        "first-picture: shows a picture without alternative text",
    ),
    "result in prose": (
        lambda nb: nb.prose("The AUC is 0.845."),
        "promise: states '0.845' in prose",
    ),
    "result in a title": (
        lambda nb: nb.source("first-picture", "cleanly", "cleanly: AUC 0.85"),
        "first-picture: states '0.85' in a constant text",
    ),
    "result in an f-string": (
        lambda nb: nb.source("first-auc", "rows held back", "1336 rows"),
        "first-auc: states '1336' in a constant text",
    ),
    "result in a label": (
        lambda nb: nb.source(
            "first-picture",
            "ax.",
            "ax.annotate('best: 0.91', (0, 0))\nax.",
        ),
        "first-picture: states '0.91' in a constant text",
    ),
    "result put into a text": (
        lambda nb: nb.add("states", "print(f'AUC {0.85:.2f}')"),
        "states: states '0.85' in",
    ),
    "result printed as a number": (
        lambda nb: nb.add("states", "print('AUC', 0.85)"),
        "states: states '0.85' in",
    ),
    "result joined": (
        lambda nb: nb.add("states", "print(', '.join(['AUC 0.85', 'all']))"),
        "states: states '0.85' in",
    ),
    "result as the last text": (
        lambda nb: nb.add("states", "'AUC 0.85'"),
        "states: states '0.85' in",
    ),
    "dead link": (
        lambda nb: nb.prose("[Next](06_gone.ipynb)"),
        "promise: links to 06_gone.ipynb, which isn't there",
    ),
    "dead heading": (
        lambda nb: nb.prose("[above](#Nowhere)"),
        "promise: links to #Nowhere, which is no heading",
    ),
    "picture in prose": (
        lambda nb: nb.prose("![A run](images/run.png)"),
        "promise: shows a picture that is neither",
    ),
    "picture in HTML": (
        lambda nb: nb.prose('<img src="x.png" alt="x">'),
        "promise: shows a picture that is neither",
    ),
    "id of a machine": (
        lambda nb: nb["seeded"].update(id="1f2e3d4c"),
        "1f2e3d4c: has an id that isn't made of words",
    ),
    "id by chance a word": (
        lambda nb: nb["seeded"].update(id="deadbeef"),
        "deadbeef: has an id that isn't made of",
    ),
    "id twice": (
        lambda nb: nb["seeded"].update(id="unseeded"),
        "Non-unique cell id 'unseeded' detected",
    ),
    "other kernel": (
        lambda nb: nb.notebook.metadata.kernelspec.update(name="base"),
        "notebook: got other metadata",
    ),
    "other minor version": (
        lambda nb: nb.notebook.update(nbformat_minor=4),
        "notebook: isn't valid nbformat",
    ),
    "two cells of parameters": (
        lambda nb: nb["seeded"].metadata.update(tags=["parameters"]),
        "parameters: notebook 00_environment: got 2 cells tagged 'parameters'",
    ),
    "computed parameter": (
        lambda nb: nb.source("parameters", "seed = 0", "seed = 1 - 1"),
        "parameters: notebook 00",
    ),
    "parameter without comment": (
        lambda nb: nb.source("parameters", "  # where", "\n# where"),
        "'run_dir' has no comment",
    ),
    "parameter left out": (
        lambda nb: nb.source("parameters", "seed = 0", "sead = 0"),
        "parameters: lacks 'seed'",
    ),
    "parameter that is never read": (
        lambda nb: nb.source("parameters", "seed = 0", "speed = 3  # how fast\nseed = 0"),
        "parameters: 'speed' is read by no cell",
    ),
    "parameter that is only noted": (
        lambda nb: [
            nb.source("parameters", "seed = 0", "speed = 3  # how fast\nseed = 0"),
            nb.source("load-case", '"seed": seed', '"seed": seed, "speed": speed'),
        ],
        "parameters: 'speed' is read by no cell",
    ),
    "parameter that is overwritten": (
        lambda nb: [
            nb.source("parameters", "seed = 0", "speed = 3  # how fast\nseed = 0"),
            nb.source("load-case", "the_case = load", "speed = 5\nprint(speed)\nthe_case = load"),
        ],
        "parameters: 'speed' is read by no cell",
    ),
    "parameter that is only printed": (
        lambda nb: [
            nb.source("parameters", "seed = 0", "speed = 3  # how fast\nseed = 0"),
            nb.source("load-case", "the_case = load", "print(f'speed: {speed}')\nthe_case = load"),
        ],
        "parameters: 'speed' is read by no cell",
    ),
    "parameter whose name means an argument": (
        lambda nb: [
            nb.source("parameters", "seed = 0", "speed = 3  # how fast\nseed = 0"),
            nb.source(
                "load-case", "the_case = load", "drive = lambda speed: speed * 2\nthe_case = load"
            ),
        ],
        "parameters: 'speed' is read by no cell",
    ),
    "parameter whose name means a turn of a loop": (
        lambda nb: [
            nb.source("parameters", "seed = 0", "speed = 3  # how fast\nseed = 0"),
            nb.source(
                "load-case",
                "the_case = load",
                "fast = [speed + 1 for speed in range(3)]\nthe_case = load",
            ),
        ],
        "parameters: 'speed' is read by no cell",
    ),
    "unused import": (
        lambda nb: nb.source("imports", "import pandas", "import json\nimport pandas"),
        "`json` imported",
    ),
    "subprocess unchecked": (
        lambda nb: nb.add("start", "import subprocess\n\nsubprocess.run(['false'])"),
        "PLW1510",
    ),
}


def test_the_notebook_itself_is_green():
    """The control: nothing is wrong with the untouched notebook."""
    assert check_notebook(NOTEBOOK) == []


@pytest.mark.parametrize("fault", STATIC_FAULTS)
def test_a_fault_of_the_file_is_found(original, tmp_path, fault):
    """A fault planted in a copy of the notebook gets its own message."""
    plant, message = STATIC_FAULTS[fault]
    planted = Planting(original)
    plant(planted)
    problems = check_notebook(planted.write(tmp_path / NOTEBOOK.name))
    assert [problem for problem in problems if message in problem], problems


@pytest.mark.parametrize(("colours", "empty"), [(1, True), (2, False), (3, False)])
def test_an_empty_figure_has_one_colour_and_no_more(original, tmp_path, colours, empty):
    """One colour is an empty figure; a second one, if only in a single pixel, is a drawing."""
    planted = Planting(original)
    picture(png(colours))(planted)
    problems = check_notebook(planted.write(tmp_path / NOTEBOOK.name))
    assert problems == (["first-picture: shows a picture of one colour"] if empty else [])


def test_an_error_that_is_meant_is_no_fault(original, tmp_path):
    """A cell tagged raises-exception may store its error."""
    planted = Planting(original)
    planted.add(
        "meant",
        "1 / 0",
        metadata={"tags": ["raises-exception"]},
        outputs=[nbformat.v4.new_output(**ERROR)],
    )
    assert check_notebook(planted.write(tmp_path / NOTEBOOK.name)) == []


def test_a_file_that_is_no_notebook_is_found(tmp_path):
    """A notebook cut off in the middle is reported as invalid."""
    path = tmp_path / NOTEBOOK.name
    path.write_bytes(NOTEBOOK.read_bytes()[:5000])
    assert check_notebook(path)[0].startswith("notebook: isn't valid nbformat")


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("The AUC is **0.85**, or 85 %.", ["0.85", "85 %"]),
        ("We lost 12 rows (3.5% of 400), and 1 column.", ["12", "3.5%", "400"]),
        ("It reached `0.845`, that is $84.5\\%$; `AUC 0.85`.", ["0.845", "84.5", "0.85"]),
        ("## 2. Results of 30 runs\n\n1. The first\n2. and 5 more", ["30"]),
        ("A 95 % interval and the 90% confidence level (Efron, 1979).", []),
        ("SHA-256, `seed=7`, [01 Data](01_data.ipynb), notebook 03, 02.3, i1.2, 04.q1", []),
        ("Twelve percent were late: ¾.", ["Twelve percent", "¾"]),
        ("`fit(lr=0.01)`, `lr=0.5`, $x^{0.5}$", []),
        ("```\nAUC: 0.85\n```", ["0.85"]),
        ('<img alt="AUC 0.85" width=300>', ["0.85"]),
        ("**Time:** 30 minutes. **Prerequisites:** 00.", []),
        ("## Seeds\n\n*About 15 minutes.*\n\nMuch is drawn.", []),
        ("## References\n\n- B. Efron: Bootstrap methods. Ann. Statist. 7, 1-26 (1979).", []),
    ],
)
def test_prose_may_not_state_results(text, refused):
    """Markdown may not state results; numbers of definitions and references pass."""
    assert numbers(text) == refused


READINGS = {  # by the code cell before it; in the k-th, x is k + 0.1254
    "readings-hold": "It is 0.125<!-- x -->, 12.5 %<!-- x --> or so<!-- approx(x, .1, .1) -->.",
    "number-edited": "It is 1.152<!-- x -->.",
    "condition-false": "It is 2.1<!-- x -->, above two<!-- x > 3 -->.",
    "comment-raises": "It is 3.1<!-- nowhere -->.",
    "name-exchanged": "The worst is **rent**<!-- name -->, at 4.1<!-- x -->.",
}


def plant_strict_faults(nb):
    """Plant faults that only a run reveals, one per cell; return the message expected for each."""
    nb.source("luck-picture", "plots.ORANGE", "plots.RED")
    nb.source("first-picture", "0, 1, 26", "0, 1, 25")
    nb["first-auc"].outputs.clear()
    nb["first-model"].outputs.append(nbformat.v4.new_output("stream", text="10 epochs\n"))
    nb.source("ask-the-model", ".round(2)", ".round(2).astype('float32')")
    nb["generator-by-hand"].execution_count = None
    nb.source("seeded", "bit for bit", "to the bit")
    nb.stored("who-holds-the-state", "text/html", "our own", "your own")
    nb.stored("stop-and-risks", "text/markdown", "Risks", "Chances")
    nb.stored("resume", "text", "these parameters", "those parameters")
    nb.swap("columns", "criteria")
    nb["finish-too-early"].metadata.tags = ["raises-exception"]
    nb["doctor"].outputs[0].data.pop("text/html")
    nb["load-case"].metadata["claims"] = {
        "It is a loan": "the_case.name == 'credit'",
        "It is a house": "the_case.name == 'house'",
    }
    nb["parameters"].metadata["claims"] = {"There is more": "more"}
    nb["criteria"].metadata["claims"] = {"It has a charter": "bool(the_case.charter)"}
    nb.add("control", "1 + 1;")
    for k, (name, reading) in enumerate(READINGS.items()):
        nb.add(name, f"x = {k} + 0.1254\nname = 'home'")
        nb.read(f"{name}-read", reading)
    nb.add(
        "native",
        "import os\n\n_ = os.write(2, b'W torch: look out')\nimport time\n\ntime.sleep(0.5)",
    )
    nb.add("magic", "%nosuch")
    nb.add("shell", "!exit 3")
    nb.add("leaves", "import sys\n\nsys.exit(0)")
    nb.add("warns", "import warnings\n\nwarnings.warn('look out')")
    nb.add("updates", "shown = display(1, display_id=True)\nshown.update(2)", outputs=[])
    nb.add(
        "other-error",
        "1 / 0",
        metadata={"tags": ["raises-exception"]},
        outputs=[nbformat.v4.new_output(**ERROR)],
    )
    nb.add(
        "later",
        "import asyncio\n\n\nasync def tell():\n    print('late')\n\n\n"
        "task = asyncio.create_task(tell())",
    )
    nb.add("after-later", "await asyncio.sleep(0.2)")
    nb.add("dies", "import os\n\nos.kill(os.getpid(), 9)")
    nb.add("after-death", "2")
    return {
        "file": "generator-by-hand: was never run",
        "luck-picture": "pixels differ (matplotlib is",
        "first-picture": "the figure's data: the run gives something else",
        "first-auc": "0 outputs are stored, the run gives 1",
        "first-model": "1 outputs are stored, the run gives 0",
        "ask-the-model": "+types: str | float32",
        "generator-by-hand": "the cell was never run",
        "seeded": "+the same seed, the same predictions, to the bit",
        "who-holds-the-state": "text/html: the run gives something else",
        "stop-and-risks": "-**Chances that we know of**",
        "resume": "stdout: the run gives something else",
        "columns": "the cell was run as number 22, but is number 24",
        "criteria": "the cell was run as number 24, but is number 22",
        "finish-too-early": "tagged raises-exception, and raised nothing",
        "doctor": "another kind of output: text/plain, metadata, execute_result is stored",
        "native": "0 outputs are stored, the run gives 1",
        "magic": "UsageError: Line magic function `%nosuch` not found",
        "shell": "a shell command failed with exit code 3",
        "leaves": "the cell failed: SystemExit: 0",
        "warns": "0 outputs are stored, the run gives 1",
        "updates": "sends update_display_data",
        "other-error": "+ZeroDivisionError: division by zero",
        "after-later": "an output of an earlier cell came only now",
        "load-case": "bear out 'It is a house': the_case.name == 'house': the condition is false",
        "parameters": "the run doesn't bear out 'There is more': more: NameError",
        "number-edited": "x: the run gives 1.125",
        "condition-false": "above two': x > 3: the condition is false",
        "comment-raises": "nowhere: NameError: name 'nowhere' is not defined",
        "name-exchanged": "name: the value is 'home'",
        "dies": "the kernel died in this cell",
        "after-death": "the kernel is gone since an earlier cell",
    }


def test_a_fault_that_only_a_run_can_tell_is_found(original, tmp_path):
    """Each cell with a fault fails for its own reason, and every other cell of the run passes."""
    planted = Planting(original)
    expected = plant_strict_faults(planted)
    results = run_strictly([planted.write(tmp_path / NOTEBOOK.name)], cwd=tmp_path)[NOTEBOOK.stem]
    assert {name for name, (text, _) in results.items() if text} == set(expected)
    for name, message in expected.items():
        assert message in results[name][0], name
    assert results["dies"][1] < 2


def test_a_cell_without_an_end_is_found(tmp_path):
    """A cell that exceeds its timeout fails, and so do those after it: their kernel is stopped."""
    notebook = nbformat.v4.new_notebook(metadata={})
    number = count(1)
    for name, source in {"endless": "while True:\n    print('.')", "next": "1"}.items():
        notebook.cells.append(
            nbformat.v4.new_code_cell(source, id=name, execution_count=next(number))
        )
    path = tmp_path / "endless.ipynb"
    nbformat.write(notebook, path)
    results = run_strictly([path], "--nbval-cell-timeout=1", cwd=tmp_path)["endless"]
    assert "the cell came to no end within 1 s" in results["endless"][0]
    assert "the kernel is gone since an earlier cell" in results["next"][0]
