"""A small course of one notebook with two exercises and a question, laid out as the real one is."""

import shutil

import nbformat

from lepton_lib.classroom.notebooks import fill_in
from lepton_lib.runs.notebooks import read_notebook
from lepton_lib.runs.stored_outputs import METADATA
from tests.test_exercises import SMALL
from tests.tiny import write_notebook

PARAMETERS = """case = "credit"  # a case
run_dir = "../runs/credit"  # where results go
seed = 0  # [0, 100]"""
IMPORTS = """import numpy as np

from lepton_lib.exercises import check, checkpoint, hint, progress_card, solution"""
HALVE = 'def halve(x):\n    return x // 2  # mend this\n\n\ncheck("07.1", halve)'
SHARE = 'share = ...\nshare = checkpoint("07.2", share)'
CELLS = (
    "# 07 Small\n\nA small notebook. See [the picture](images/dot.png).",
    ("parameters", PARAMETERS, "parameters"),
    ("imports", IMPORTS),
    "## Halves\n\nSome words about halves, a *few* of them.\n\n"
    "### Exercise 07.1: Halve it\n\nMend it.",
    ("unneeded", "import time\n\ntime.sleep(0)\nnumbers = np.arange(4)\nnumbers"),
    ("halve-it", HALVE, "exercise"),
    "### Exercise 07.2: A share\n\nTwo of how many?",
    ("total", "total = 4\ntotal *= 2\ntotal"),
    ("a-share", SHARE, "exercise"),
    ("after-share", "print(share * total)"),
    "## Letters\n\n### Question 07.q1: Which?\n\n- a\n- b\n- c",
    ("which", 'check("07.q1", ...)', "exercise"),
    ("card", 'progress_card("07")', "exercise"),
)


def write_course(folder):
    """The course in ``folder / "notebooks"``; returns its notebook."""
    (folder / "notebooks" / "exercises").mkdir(parents=True, exist_ok=True)
    (folder / "notebooks" / "exercises" / "07_small.toml").write_text(SMALL, encoding="utf-8")
    (folder / "notebooks" / "images").mkdir(exist_ok=True)
    (folder / "notebooks" / "images" / "dot.png").write_bytes(b"picture")
    path = write_notebook(folder / "notebooks" / "07_small.ipynb", *CELLS)
    notebook = nbformat.read(path, 4)
    notebook.metadata = METADATA
    nbformat.write(notebook, path)
    return path


def answered(notebook, **answers):
    """The notebook's cells, answered; ``n1=...`` is the code for 07.1, None leaves it as it is."""
    return fill_in(
        read_notebook(notebook), {f"07.{name.lstrip('n')}": code for name, code in answers.items()}
    )


def copy_course(source, folder):
    """Another copy of a course that was written before."""
    return shutil.copytree(source / "notebooks", folder / "notebooks")
