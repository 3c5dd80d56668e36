"""Many short runs of one lesson: CPU seconds a run by each way to make them, outputs compared."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from lepton_lib.runs import find_notebook
from lepton_lib.runs.notebooks import is_code, read_notebook, strip_tagged_cells, tags
from lepton_lib.utils import SAME_BITS
from tests.benchmarks.timing import Row

LESSON = "00_environment"
RUNS = 20
_API = """
import sys, papermill
for k in range({runs}):
    papermill.execute_notebook({path!r}, f"{out}/{{k}}.ipynb", engine_name={engine!r},
        parameters=dict(seed=k, run_dir=f"{out}/run{{k}}"), progress_bar=False)
"""
_COMMAND = """
import subprocess, sys
for k in range({runs}):
    subprocess.run([sys.executable, "-m", "papermill", {path!r}, f"{out}/{{k}}.ipynb", *{engine!r},
        "-p", "seed", str(k), "-p", "run_dir", f"{out}/run{{k}}", "--no-progress-bar"], check=True)
"""
_SWEEP = """
import sys
sys.argv = ["lepton", "sweep", {path!r}, "-p", "seed=0..{last}", "--jobs", "1", "--out", "{out}/s"]
from lepton_lib.cli import main
main()
"""
# name, program, its engine, how many runs: the slow ones make fewer
WAYS = (
    ("papermill's command", _COMMAND, [], 5),
    ("papermill's API", _API, None, 5),
    ("papermill's command, --engine lepton", _COMMAND, ["--engine", "lepton"], 5),
    ("papermill's API, engine lepton", _API, "lepton", RUNS),
    ("lepton sweep, pages included", _SWEEP, "", RUNS),
)


def rows() -> list[Row]:
    """CPU seconds a run of each way, and whether its outputs are those of papermill's API."""
    result, expected, api = [], {}, 0.0
    for name, program, engine, runs in WAYS:
        with tempfile.TemporaryDirectory() as out:
            path = _as_pipeline_step(Path(out))
            values: dict[str, Any] = {"path": path, "out": out, "runs": runs, "last": runs - 1}
            seconds = _cpu_seconds(program.format(engine=engine, **values)) / runs
            found = _outputs(Path(out), whole="sweep" not in name)
        if name == "papermill's API":
            expected, api = found, seconds
        shown = f"{seconds:.2f} s"
        if api:
            shown += (
                f", 1/{api / seconds:.1f} of papermill's API; outputs {_judge(found, expected)}"
            )
        target = "<= 1/10 of papermill's API, outputs equal" if "lepton" in name else ""
        result.append((f"{LESSON}, CPU time of a run of {runs}: {name}", shown, target))
    return result


def _as_pipeline_step(folder: Path) -> str:
    """The lesson as `lepton run` runs it: without the cells of exercises and lessons."""
    nb = strip_tagged_cells(read_notebook(find_notebook(LESSON)))
    (folder / "lesson").mkdir()
    nbformat.write(nb, folder / "lesson" / f"{LESSON}.ipynb")
    return str(folder / "lesson" / f"{LESSON}.ipynb")


def _cpu_seconds(program: str) -> float:
    """Of a process and all that it waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, **SAME_BITS, "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _outputs(folder: Path, *, whole: bool) -> dict[tuple[int, str], Any]:
    """By seed and cell: what each cell of each run put out, but for what it measured."""
    if whole:
        paths = {int(path.stem): path for path in folder.glob("*.ipynb")}
    else:
        found = folder.glob(f"s/*/notebooks/{LESSON}.ipynb")
        paths = {int(path.parts[-3].split("-")[1].split("_")[0]): path for path in found}
    cells = {}
    for seed, path in paths.items():
        for cell in nbformat.read(path, as_version=4).cells:
            if is_code(cell) and "measured" not in tags(cell) and cell.id != "parameters":
                cells[seed, cell.id] = _merged(cell.outputs)
    return cells


def _merged(outputs: list[Any]) -> list[Any]:
    """Outputs without execution counts; texts of one stream joined, as nbclient can."""
    merged: list[Any] = []
    for output in outputs:
        entry = {key: value for key, value in output.items() if key != "execution_count"}
        same = [
            e for e in merged if e["output_type"] == "stream" and e["name"] == entry.get("name")
        ]
        if same:
            same[0]["text"] += entry["text"]
        else:
            merged.append(entry)
    return merged


def _judge(found: dict[tuple[int, str], Any], expected: dict[tuple[int, str], Any]) -> str:
    both = found.keys() & expected.keys()
    differ = sorted({cell for seed, cell in both if found[seed, cell] != expected[seed, cell]})
    return f"of {len(both)} cells equal" if not differ else f"differ in {', '.join(differ)}"
