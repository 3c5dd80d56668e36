"""Learning and teaching: work, progress, certificate, grade, handout, plan, jump."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from lepton_lib.cli.common import Progress
from lepton_lib.errors import needs_extra

app = typer.Typer()


@app.command()
def work(
    folder: Annotated[
        Path, typer.Argument(help="Beside notebooks/, so that relative names lead on.")
    ] = Path("work"),
    *,
    open_: Annotated[bool, typer.Option("--open", help="Then open JupyterLab there.")] = False,
) -> None:
    """Make your own copies of the notebooks, or bring them up to date without losing an answer."""
    from lepton_lib.classroom.work import make_work

    for line in make_work(folder):
        typer.echo(line)
    if open_:
        root = folder.resolve().parent  # what JupyterLab shows: the copies, and what they link to
        words = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
        words += ["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []
        words.append(str(min(folder.resolve().glob("*.ipynb")).relative_to(root)))
        os.chdir(root)
        sys.stdout.flush()
        with needs_extra("class", "--open", "jupyterlab"):
            os.execv(sys.executable, words)


@app.command()
def progress(
    folder: Annotated[
        Path | None, typer.Argument(help="A work folder; the one around here, or work/.")
    ] = None,
) -> None:
    """Show what is done of all exercises."""
    from lepton_lib.classroom.certificate import cards
    from lepton_lib.exercises.progress import CORRECT

    found = cards(folder)
    for card in found:
        typer.echo(card)
    lines = [standing for card in found for _, standing in card.lines.values()]
    typer.echo(
        f"In all {sum(standing.status == CORRECT for standing in lines)} of {len(lines)} done."
    )


@app.command()
def certificate(
    name: Annotated[str, typer.Argument(help="Your name, as it is to stand there.")] = "",
    *,
    out: Annotated[Path, typer.Option(help="The drawing to write.")] = Path("certificate.svg"),
    verify: Annotated[
        str,
        typer.Option(
            metavar="FILE|CODE", help="Say whether one is genuine; a code needs the name."
        ),
    ] = "",
    folder: Annotated[Path | None, typer.Option("--work", help="The work folder.")] = None,
) -> None:
    """Draw the certificate when all exercises are done, or verify one.

    Its code proves that nothing was changed since; it doesn't prove who did the exercises.
    """
    from lepton_lib.classroom.certificate import make_certificate
    from lepton_lib.classroom.certificate import verify as verify_certificate
    from lepton_lib.utils import write_atomic

    if verify:
        text = Path(verify).read_text("utf-8", "replace") if Path(verify).is_file() else verify
        typer.echo(verify_certificate(text, name))
    else:
        write_atomic(out, make_certificate(name, folder))
        typer.echo(f"To print: {out}")


@app.command()
def grade(
    folder: Annotated[
        Path, typer.Argument(help="Learners' notebooks: a file or a folder for each.")
    ],
    *,
    seconds: Annotated[int, typer.Option(min=1, help="That one notebook may take.")] = 120,
    cell_seconds: Annotated[int, typer.Option(min=1, help="That one cell may take.")] = 20,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at the same time.")] = 2,
) -> None:
    """Run a class's notebooks and write class.csv and class.html: who has done what, and what the class mistakes.

    Each runs in a process of its own, with limits on time, memory and files, and without a network.
    It helps to teach; it is no exam supervision: it doesn't know who wrote a notebook.
    """
    from lepton_lib.classroom.grading import Limits, grade
    from lepton_lib.classroom.report import NO_EXAM, write_report

    learners = grade(
        folder,
        limits=Limits(seconds, cell_seconds, jobs),
        progress=lambda one: typer.echo(
            f"{one.name:<32} {one.n_correct:3} correct  {'; '.join(one.notes)}", err=True
        ),
    )
    written = write_report(learners, folder)
    typer.echo(f"{NO_EXAM}\nTo read: {written[-1]}")


@app.command()
def handout(
    folder: Annotated[Path, typer.Argument(help="Where: learners/, instructor/ and slides/.")],
    *,
    nbgrader: Annotated[
        bool, typer.Option("--nbgrader", help="With a test after each exercise for nbgrader.")
    ] = False,
) -> None:
    """Make what is handed out: notebooks to fill in, answered and executed ones with notes, and slides."""
    from lepton_lib.classroom.editions import hand_out

    with closing(Progress()) as show:
        made = hand_out(folder, nbgrader=nbgrader, progress=show)
    typer.echo(f"{len(made)} files in {folder}: learners, instructor, slides.")


@app.command()
def plan(
    minutes: Annotated[
        int, typer.Option(min=1, help="That the lesson has, with its breaks.")
    ] = 180,
    goals: Annotated[
        str, typer.Option(help="Steps by name or number, as data,training; all by default.")
    ] = "",
) -> None:
    """Say which sections fit into a lesson, in order, with breaks."""
    from lepton_lib.classroom.pacing import plan

    typer.echo(plan(minutes, [goal for goal in goals.split(",") if goal.strip()]).to_text())


@app.command()
def jump(
    notebook: Annotated[str, typer.Argument(help="Where to start, as 03.")],
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/credit"),
) -> None:
    """Put everyone at the start of a notebook, with the same results of the steps before it."""
    from lepton_lib.classroom.pacing import jump

    with closing(Progress()) as show:
        left = jump(notebook, out, progress=show)
    for step, digest in left:
        typer.echo(f"{step:<16} {digest}")
    typer.echo(
        f"{out} is ready for {notebook}."
        + (" Compare the codes with your neighbour's." if left else "")
    )
