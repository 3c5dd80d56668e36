"""How long a class report takes, and whether every instructor's notebook is correct."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat

from lepton_lib.classroom.editions import hand_out
from lepton_lib.classroom.grading import grade
from lepton_lib.classroom.notebooks import fill_in
from lepton_lib.exercises.definitions import definition_files, notebook_number, read_definitions
from lepton_lib.runs import find_notebooks
from lepton_lib.runs.notebooks import read_notebook

SEATS = 30


def rows() -> Iterator[tuple[str, str, str]]:
    """What, measured, target."""
    with tempfile.TemporaryDirectory() as place:
        paths = list(find_notebooks().values())
        for seat in range(SEATS):
            nb = read_notebook(paths[seat % len(paths)])
            filled = json.dumps(fill_in(nb) if seat % 3 else nb)
            Path(place, f"seat-{seat}.ipynb").write_text(filled, encoding="utf-8")
        begun = time.perf_counter()
        learners = grade(Path(place)).learners
        seconds = time.perf_counter() - begun
        n_correct = sum(learner.n_correct for learner in learners)
        yield (
            f"class report, {SEATS} notebooks of the six, two at a time",
            f"{seconds:.0f} s",
            "<= 300 s",
        )
        known = {number: len(read_definitions(path)) for number, path in definition_files().items()}
        expected = sum(
            known[notebook_number(paths[seat % len(paths)])] for seat in range(SEATS) if seat % 3
        )
        yield "class report: answers found correct", f"{n_correct} of {expected}", "all"
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        hand_out(Path(place))
        seconds = time.perf_counter() - begun
        outputs = ""
        for path in Path(place, "instructor").glob("*.ipynb"):
            for cell in nbformat.read(path, 4).cells:
                for output in cell.get("outputs", []):
                    outputs += (
                        output.get("text", "") + output.get("data", {}).get("text/plain", "") + "\n"
                    )
        correct = re.findall(r"^\d\d\.\w+ correct: ", outputs, re.MULTILINE)
        yield "all editions, the instructor's run from top to bottom", f"{seconds:.0f} s", ""
        yield (
            "instructor's edition: checks that say correct",
            f"{len(correct)} of {sum(known.values())}",
            "all",
        )
