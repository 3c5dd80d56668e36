"""The desk: the `lepton` command. Prints, parses, and leaves the work to the floors below."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_lib.errors import LeptonError, NotebookError, ParameterError

if TYPE_CHECKING:
    from lepton_lib.runs import Event

app = typer.Typer(
    help="Machine learning from research to application: run the course's notebooks, serve what they leave.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="A stem, its prefix or a path; 'loop' for 00 to 05.")] = "loop",
    *,
    case: Annotated[str | None, typer.Option(help="A case's name, or a folder with a case.toml.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/CASE by default.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="A parameter; as often as needed.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run every step, also those that are done already.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Run the cells of exercises and lessons, too.")] = False,
) -> None:
    """Run one notebook, or the whole loop, into a run folder."""
    from lepton_lib.runs import find_notebook, run_loop, run_notebook
    from lepton_lib.runs.parameters import loop_notebooks

    given = _parameters(parameter or [], case, out)
    notebooks = loop_notebooks() if notebook == "loop" else [find_notebook(notebook)]
    if "case" in given:
        given["case"] = _case_by_name(given["case"])
    run_dir = Path(given.pop("run_dir", "") or Path("runs", given.get("case") or _default_case(notebooks)))
    show = _Progress()
    try:
        if notebook == "loop":
            run_loop(run_dir=run_dir, parameters=given, notebooks=notebooks, progress=show, whole=whole, fresh=fresh)
        else:
            executed = run_notebook(notebooks[0], run_dir=run_dir, parameters=given, progress=show, whole=whole)
    except KeyboardInterrupt:
        show.close()
        typer.echo("Interrupted. The same command goes on from there.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        show.close()
    if notebook == "loop":
        from lepton_lib.artefacts import Run
        from lepton_lib.runs import Summary

        typer.echo(f"\n{Summary.of(Run(run_dir)).to_text()}\n\nAll of it on one page: {run_dir / 'index.html'}")
    else:
        typer.echo(f"To read: {executed.with_suffix('.html')}")


def _parameters(pairs: list[str], case: str | None, out: Path | None) -> dict[str, str]:
    """``name=value`` pairs and the two options as one; each name once."""
    options = [("case", case), ("run_dir", None if out is None else str(out))]
    given = {name: value for name, value in options if value is not None}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise ParameterError(f"-p {pair}", got="no '='", expected="name=value", remedy="Write -p epochs=10.")
        if name.strip() in given:
            raise ParameterError(
                f"parameter {name.strip()!r}", got="two values", expected="one", remedy="Take one of them out."
            )
        given[name.strip()] = value
    return given


def _case_by_name(case: str) -> str:
    """The case's name; where a folder was given, notebooks will find it by its name, too."""
    from lepton_lib.cases import load_case

    found = load_case(Path(case) if os.sep in case else case)
    if os.sep in case:
        places = [str(found.folder.absolute().parent), os.environ.get("LEPTON_DATASETS", "")]
        os.environ["LEPTON_DATASETS"] = os.pathsep.join(filter(None, places))
    return found.name


def _default_case(notebooks: list[Path]) -> str:
    from lepton_lib.runs import read_parameters

    for path in notebooks:
        if (parameter := read_parameters(path).get("case")) is not None:
            return str(parameter.default)
    return notebooks[0].stem


class _Progress:
    """One line a notebook on stderr: a bar over its cells in a terminal, else a line when it has ended."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, event: Event) -> None:
        terminal = sys.stderr.isatty()
        if event.state == "running" and terminal:
            if self.bar is None:
                from tqdm import tqdm

                form = "{desc:<16} {bar:24} {n_fmt:>3}/{total_fmt} cells {elapsed}"
                width = min(80, shutil.get_terminal_size().columns)  # nrows: some terminals say that they have none
                self.bar = tqdm(
                    total=event.total, desc=event.notebook, bar_format=form, ncols=width, nrows=24, disable=False
                )
            self.bar.update(event.done - self.bar.n)
        elif event.state != "running":
            cells = f"{event.done:3}/{event.total} cells {event.seconds:6.1f} s" if event.total else ""
            if self.bar is None or event.state == "failed":
                self.close()
                typer.echo(f"{event.notebook:<16} {event.state:<12} {cells}".rstrip(), err=True)
            self.close()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@app.command()
def doctor() -> None:
    """Look at this machine, and name each problem and its mend."""
    from lepton_lib.doctor import examine

    report = examine()
    typer.echo(report.to_text(details=True))
    raise typer.Exit(0 if report.ok else FAILED)


@app.command()
def cases() -> None:
    """List the cases."""
    from lepton_lib.cases import list_cases, load_case

    for name in list_cases():
        try:
            typer.echo(f"{name:<16} {load_case(name).title}")
        except LeptonError as error:
            typer.echo(f"{name:<16} can't be used: {error}")


@app.command("new-case")
def new_case(
    file: Annotated[Path, typer.Argument(help="A CSV file.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path | None, typer.Option(help="The new case's folder; datasets/NAME by default.")] = None,
) -> None:
    """Draft a case from a CSV file."""
    from lepton_lib.data import draft_case

    drafted = draft_case(file, target=target, folder=out)
    typer.echo(f"Drafted {drafted}: read and correct it, then `lepton run loop --case {drafted.parent}`.")


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder in which 04_deployment has run.")]
Trust = Annotated[
    list[str] | None, typer.Option(metavar="KEY", help="A public key whose signature counts; your own by default.")
]


@app.command()
def serve(
    run_dir: RunFolder,
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    trust: Trust = None,
    *,
    require_key: Annotated[bool, typer.Option("--require-key", help="Demand an API key.")] = False,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Let everybody ask, on any address.")] = False,
) -> None:
    """Serve a run's model over HTTP."""
    from lepton_lib.serving import serve as serve_run

    serve_run(run_dir, host=host, port=port, workers=workers, trust=trust, require_key=require_key, no_keys=no_keys)


@app.command()
def install(
    run_dir: RunFolder,
    source: Annotated[Path, typer.Argument(help="A service folder, such as OTHER/service.")],
    trust: Trust = None,
) -> None:
    """Verify a release and lay it beside the run's others."""
    from lepton_lib.serving import releases

    typer.echo(f"Installed {releases.install(run_dir, source, trust=trust)}.")


@app.command()
def promote(run_dir: RunFolder, version: str, trust: Trust = None) -> None:
    """Let an installed release answer from now on."""
    from lepton_lib.serving import releases

    releases.promote(run_dir, version, trust=trust)
    typer.echo(f"{version} answers.")


@app.command("roll-back")
def roll_back(run_dir: RunFolder, trust: Trust = None) -> None:
    """Let the release before the current one answer again."""
    from lepton_lib.serving import releases

    typer.echo(f"{releases.roll_back(run_dir, trust=trust)} answers.")


@app.command()
def log(
    run_dir: RunFolder,
    *,
    find: Annotated[str | None, typer.Option(metavar="ID", help="Show a prediction or request.")] = None,
    erase: Annotated[str | None, typer.Option(metavar="ID", help="Remove a prediction or request for good.")] = None,
    keep_days: Annotated[float | None, typer.Option(min=0, metavar="N", help="Remove what is older.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Export as a table.")] = None,
) -> None:
    """Look into a run's prediction log, export it, thin it out."""
    from lepton_lib.serving import upkeep

    path = run_dir / "service" / "predictions.sqlite"
    if find is not None:
        typer.echo(upkeep.describe(run_dir, find))
    if parquet is not None:
        typer.echo(f"{upkeep.export(path, upkeep.case_of(run_dir), parquet)} predictions in {parquet}.")
    if erase is not None:
        typer.echo(f"{upkeep.erase(path, erase)} predictions erased.")
    if keep_days is not None:
        typer.echo(f"{upkeep.keep_days(path, keep_days)} requests removed.")


@app.command()
def container(run_dir: RunFolder, folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")]) -> None:
    """Write a folder to build a container image from."""
    from lepton_lib.serving.container import write_container

    names = write_container(run_dir, folder)
    typer.echo(f"{len(names)} files in {folder}: read {folder / 'README.md'}.")


keys = typer.Typer(help="API keys of a run's service, and your signing key.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command("add")
def add_key(
    run_dir: RunFolder, name: str, rate: Annotated[float, typer.Option(help="Requests a second.")] = 100.0
) -> None:
    """Make a key; it is shown this once."""
    from lepton_lib.serving import guards

    typer.echo(guards.add_key(guards.keys_file(run_dir), name, rate=rate))


@keys.command("list")
def list_keys(run_dir: RunFolder) -> None:
    """Show the keys' names and rates."""
    from lepton_lib.serving import guards

    for name, rate in guards.list_keys(guards.keys_file(run_dir)).items():
        typer.echo(f"{name:<24} {rate:g} requests/s")


@keys.command("revoke")
def revoke_key(run_dir: RunFolder, name: str) -> None:
    """Take a key away."""
    from lepton_lib.serving import guards

    guards.revoke_key(guards.keys_file(run_dir), name)


@keys.command("signing")
def signing_key() -> None:
    """Show the public key that your releases are signed with; others trust it with --trust."""
    from lepton_lib.serving import signing

    typer.echo(signing.public_key())


@app.command()
def monitor(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that is being served from.")],
    *,
    act: Annotated[bool, typer.Option("--act", help="Retrain, promote and roll back, not only say so.")] = False,
    every: Annotated[float | None, typer.Option(min=0.01, metavar="MINUTES", help="Again and again.")] = None,
) -> None:
    """Judge what the service has answered since the last time: report, decide, and with --act do it."""
    from lepton_lib.operations import monitor as look
    from lepton_lib.operations import watch

    if every is not None:
        watch(run_dir, every=every * 60, act=act, tell=typer.echo)
    typer.echo(look(run_dir, act=act, tell=typer.echo))
    typer.echo(f"To read: {run_dir / 'monitoring' / 'report.html'}")


@app.command()
def label(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that is being served from.")],
    table: Annotated[Path, typer.Argument(metavar="LABELS.CSV", help="With the columns id and label.")],
) -> None:
    """Attach labels that have come late to their predictions."""
    from lepton_lib.cases import load_case
    from lepton_lib.operations import attach_file
    from lepton_lib.serving.scoring import read_service

    case = load_case(read_service(run_dir / "service")[0]["case"], verify=False)
    count = attach_file(run_dir / "service" / "predictions.sqlite", table, case)
    typer.echo(str(count))
    raise typer.Exit(0 if count.clean else FAILED)


@app.command()
def notebooks(
    names: Annotated[list[str] | None, typer.Argument(help="Stems, prefixes or paths; all by default.")] = None,
) -> None:
    """Re-execute stored notebooks; write their outputs back, and how many minutes their sections take."""
    from lepton_lib.classroom.pacing import stamp_minutes
    from lepton_lib.runs import find_notebook, find_notebooks, refresh_notebooks

    paths = [find_notebook(name) for name in names] if names else list(find_notebooks().values())
    show = _Progress()
    try:
        refresh_notebooks(paths, progress=show)
    finally:
        show.close()
    for path in paths:
        stamp_minutes(path)


@app.command()
def work(
    folder: Annotated[Path, typer.Argument(help="Beside notebooks/, so that relative names lead on.")] = Path("work"),
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
        os.execv(sys.executable, words)


@app.command()
def progress(
    folder: Annotated[Path | None, typer.Argument(help="A work folder; the one around here, or work/.")] = None,
) -> None:
    """Show what is done of all exercises."""
    from lepton_lib.classroom.certificate import cards
    from lepton_lib.exercises.progress import CORRECT

    found = cards(folder)
    for card in found:
        typer.echo(card)
    lines = [standing for card in found for _, standing in card.lines.values()]
    typer.echo(f"In all {sum(standing.status == CORRECT for standing in lines)} of {len(lines)} done.")


@app.command()
def certificate(
    name: Annotated[str, typer.Argument(help="Your name, as it is to stand there.")] = "",
    *,
    out: Annotated[Path, typer.Option(help="The drawing to write.")] = Path("certificate.svg"),
    verify: Annotated[
        str, typer.Option(metavar="FILE|CODE", help="Say whether one is genuine; a code needs the name.")
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
    folder: Annotated[Path, typer.Argument(help="Learners' notebooks: a file or a folder for each.")],
    *,
    seconds: Annotated[int, typer.Option(min=1, help="That one notebook may take.")] = 120,
    cell_seconds: Annotated[int, typer.Option(min=1, help="That one cell may take.")] = 20,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at the same time.")] = 2,
) -> None:
    """Run a class's notebooks and write class.csv and class.html: who has done what, and what the class mistakes.

    Each runs in a process of its own, with limits on time, memory and files, and without a network. It helps to teach;
    it is no exam supervision: it doesn't know who wrote a notebook.
    """
    from lepton_lib.classroom.grading import Limits, grade
    from lepton_lib.classroom.report import NO_EXAM, write_report

    learners = grade(
        folder,
        limits=Limits(seconds, cell_seconds, jobs),
        progress=lambda one: typer.echo(f"{one.name:<32} {one.n_correct:3} correct  {'; '.join(one.notes)}", err=True),
    )
    written = write_report(learners, folder)
    typer.echo(f"{NO_EXAM}\nTo read: {written[-1]}")


@app.command()
def handout(folder: Annotated[Path, typer.Argument(help="Where: learners/, instructor/ and slides/.")]) -> None:
    """Make what is handed out: notebooks to fill in, answered and executed ones with notes, and slides."""
    from lepton_lib.classroom.editions import hand_out

    show = _Progress()
    try:
        made = hand_out(folder, progress=show)
    finally:
        show.close()
    typer.echo(f"{len(made)} files in {folder}: learners, instructor, slides.")


@app.command()
def plan(
    minutes: Annotated[int, typer.Option(min=1, help="That the lesson has, with its breaks.")] = 180,
    goals: Annotated[str, typer.Option(help="Steps by name or number, as data,training; all by default.")] = "",
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

    show = _Progress()
    try:
        left = jump(notebook, out, progress=show)
    finally:
        show.close()
    for step, digest in left:
        typer.echo(f"{step:<16} {digest}")
    typer.echo(f"{out} is ready for {notebook}." + (" Compare the codes with your neighbour's." if left else ""))


def main() -> None:
    """The entry point: a mistake that the reader can mend is one message on stderr, never a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that kernels are ended
    try:
        app()
    except NotebookError as error:
        sys.exit(_told(error, FAILED))
    except LeptonError as error:
        sys.exit(_told(error, USAGE))


def _told(error: LeptonError, code: int) -> int:
    typer.echo(f"lepton: {error}", err=True)
    return code


if __name__ == "__main__":
    main()
