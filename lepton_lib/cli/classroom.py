"""Learning and teaching: work, progress, certificate, grade, handout, plan, jump."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from lepton_lib.cli.common import INTERRUPTED, Progress
from lepton_lib.errors import needs_extra

app = typer.Typer()
# JupyterLab asks its maker for news, and PyPI for updates and extensions, unless told not to.
OFFLINE_LAB = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)


@app.command()
def work(
    folder: Annotated[Path, typer.Argument(help="Beside notebooks/.")] = Path("work"),
    *,
    open_: Annotated[bool, typer.Option("--open", help="Then open JupyterLab there.")] = False,
) -> None:
    """Make your own copies of the notebooks, or bring them up to date without losing an answer."""
    from lepton_lib.classroom.work_folder import make_work

    for line in make_work(folder):
        typer.echo(line)
    if open_:
        root = folder.resolve().parent  # what JupyterLab shows: the copies, and what they link to
        words = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", *OFFLINE_LAB]
        words += ["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []
        words.append(str(min(folder.resolve().glob("*.ipynb")).relative_to(root)))
        os.chdir(root)
        sys.stdout.flush()
        with needs_extra("class", "--open", "jupyterlab"):
            os.execv(sys.executable, words)


@app.command()
def progress(
    folder: Annotated[Path | None, typer.Argument(help="By default around here, or work/.")] = None,
) -> None:
    """Show what is done of all exercises."""
    from lepton_lib.classroom.certificate import progress_cards

    cards = progress_cards(folder)
    for card in cards:
        typer.echo(card)
    n_exercises = sum(len(card.lines) for card in cards)
    typer.echo(f"In all {sum(card.n_done for card in cards)} of {n_exercises} done.")


@app.command()
def certificate(
    name: Annotated[str, typer.Argument(help="Your name, as it is to stand there.")] = "",
    *,
    out: Annotated[Path, typer.Option(help="The drawing to write.")] = Path("certificate.svg"),
    verify: Annotated[str, typer.Option(metavar="FILE|CODE", help="Say if its code fits.")] = "",
    folder: Annotated[Path | None, typer.Option("--work", help="The work folder.")] = None,
) -> None:
    """Draw the certificate when all exercises are done, or verify one; a code needs the name, too.

    Its code finds slips and changes. It is no signature: anyone with the course can compute one.
    """
    from lepton_lib.classroom.certificate import make_certificate, verify_certificate
    from lepton_lib.utils import write_atomic

    if verify:
        text = Path(verify).read_text("utf-8", "replace") if Path(verify).is_file() else verify
        typer.echo(verify_certificate(text, name))
    else:
        write_atomic(out, make_certificate(name, folder))
        typer.echo(f"To print: {out}")


@app.command()
def grade(
    folder: Annotated[Path, typer.Argument(help="A notebook or a folder for each learner.")],
    *,
    seconds: Annotated[int, typer.Option(min=1, help="That one notebook may take.")] = 120,
    cell_seconds: Annotated[int, typer.Option(min=1, help="That one cell may take.")] = 20,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at the same time.")] = 2,
    unisolated: Annotated[
        bool, typer.Option("--unisolated", help="Also where their code can reach your files.")
    ] = False,
) -> None:
    """Run a class's notebooks and write class.csv and class.html: results and misconceptions.

    Each runs in a sandbox without a network, with limits on time, memory, processes and files. The
    report is a teaching aid, not an exam: it doesn't know who wrote a notebook. Ctrl-C ends it
    early and keeps what has been graded.
    """
    from lepton_lib.classroom.class_report import NO_EXAM, write_class_report
    from lepton_lib.classroom.grading import Learner, grade
    from lepton_lib.classroom.sandbox import Limits

    def show(one: Learner) -> None:
        name = one.name if len(one.name) <= 32 else f"{one.name[:29]}..."
        notes = "; ".join(one.notes)
        typer.echo(f"{name:<32} {one.n_correct:3} correct  {notes}", err=True)

    limits = Limits(seconds, cell_seconds, jobs)
    graded = grade(folder, limits=limits, unisolated=unisolated, progress=show)
    _, page = write_class_report(graded, folder)
    for warning in graded.warnings:
        typer.echo(f"WARNING: {warning}", err=True)
    typer.echo(f"{NO_EXAM}\nTo read: {page}")
    if not graded.complete:
        raise typer.Exit(INTERRUPTED)


@app.command()
def handout(
    folder: Annotated[Path, typer.Argument(help="Where: learners/, instructor/ and slides/.")],
    *,
    nbgrader: Annotated[bool, typer.Option("--nbgrader", help="With nbgrader's tests.")] = False,
) -> None:
    """Make notebooks to fill in, answered and executed ones with notes, and slides."""
    from lepton_lib.classroom.editions import hand_out

    with closing(Progress()) as show:
        files = hand_out(folder, nbgrader=nbgrader, progress=show)
    typer.echo(f"{len(files)} files in {folder}: learners, instructor, slides.")


@app.command()
def plan(
    minutes: Annotated[int, typer.Option(min=1, help="The lesson's, with breaks.")] = 180,
    goals: Annotated[str, typer.Option(help="Steps, as data,training or 1,2; or all.")] = "",
) -> None:
    """Say which sections fit into a lesson, in order, with breaks."""
    from lepton_lib.classroom.pacing import plan_lesson

    lesson = plan_lesson(minutes, [goal for goal in goals.split(",") if goal.strip()])
    typer.echo(lesson.to_text())


@app.command()
def jump(
    notebook: Annotated[str, typer.Argument(help="Where to start, as 03 or evaluation.")],
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/credit"),
) -> None:
    """Put everyone at the start of a notebook, with the same results of the steps before it."""
    from lepton_lib.classroom.pacing import run_steps_before

    with closing(Progress()) as show:
        codes = run_steps_before(notebook, out, progress=show)
    for step, code in codes:
        typer.echo(f"{step:<16} {code}")
    compare = " Compare the codes with your neighbour's." if codes else ""
    typer.echo(f"{out} is ready for {notebook}.{compare}")
