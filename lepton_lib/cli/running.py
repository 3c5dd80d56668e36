"""Running notebooks, and managing cases: run, doctor, cases, new-case, notebooks."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from lepton_lib.cli.common import FAILED, INTERRUPTED, Progress
from lepton_lib.errors import LeptonError, ParameterError

app = typer.Typer()


@app.command()
def run(
    notebook: Annotated[
        str,
        typer.Argument(help="A name, its first letters such as 02, or a path; 'loop' runs 00-05."),
    ] = "loop",
    *,
    case: Annotated[
        str | None, typer.Option(help="The case's name, or a folder with a case.toml.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default: runs/CASE.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME=VALUE", help="Set a parameter; can be repeated."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run all steps again, also those already done.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Include the cells of exercises and lessons.")
    ] = False,
) -> None:
    """Run one notebook, or the whole loop, into a run folder."""
    from lepton_lib.runs import RunSummary, find_notebook, run_loop, run_notebook
    from lepton_lib.runs.notebooks import loop_notebooks
    from lepton_lib.runs.parameters import datasets_path, find_case

    values = _overrides(parameter or [], case, out)
    notebooks = loop_notebooks() if notebook == "loop" else [find_notebook(notebook)]
    if loaded := find_case(values):
        if os.sep in values["case"]:  # notebooks find it by its name
            os.environ["LEPTON_DATASETS"] = datasets_path(loaded)
        values["case"] = loaded.name
    default = Path("runs", values.get("case") or _default_case(notebooks))
    run_dir = Path(values.pop("run_dir", "") or default)
    with closing(Progress()) as show:
        try:
            if notebook == "loop":
                finished = run_loop(
                    run_dir=run_dir,
                    parameters=values,
                    notebooks=notebooks,
                    progress=show,
                    whole=whole,
                    fresh=fresh,
                )
                message = (
                    f"\n{RunSummary.of(finished).to_text()}\n\n"
                    f"All of it on one page: {run_dir / 'index.html'}"
                )
            else:
                executed = run_notebook(
                    notebooks[0], run_dir=run_dir, parameters=values, progress=show, whole=whole
                )
                message = f"To read: {executed.with_suffix('.html')}"
        except KeyboardInterrupt:
            show.close()
            typer.echo("Interrupted. The same command resumes the run.", err=True)
            raise typer.Exit(INTERRUPTED) from None
    typer.echo(message)


def _overrides(pairs: list[str], case: str | None, out: Path | None) -> dict[str, str]:
    """The values of ``-p NAME=VALUE``, ``--case`` and ``--out`` by parameter; each name once."""
    values = {} if case is None else {"case": case}
    if out is not None:
        values["run_dir"] = str(out)
    for pair in pairs:
        name, sign, value = pair.partition("=")
        name = name.strip()
        if not sign or not name:
            raise ParameterError(f"-p {pair}", "no '='", "name=value", "Write -p epochs=10.")
        if name in values:
            raise ParameterError(f"parameter {name!r}", "two values", "one", "Remove one of them.")
        values[name] = value
    return values


def _default_case(notebooks: list[Path]) -> str:
    from lepton_lib.runs import read_parameters

    for path in notebooks:
        if (parameter := read_parameters(path).get("case")) is not None:
            return str(parameter.default)
    return notebooks[0].stem


@app.command()
def doctor() -> None:
    """Check this machine, and show how to fix each problem."""
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
    out: Annotated[
        Path | None, typer.Option(help="The new case's folder; default: datasets/NAME.")
    ] = None,
) -> None:
    """Draft a case from a CSV file."""
    from lepton_lib.data import draft_case

    path = draft_case(file, target=target, folder=out)
    typer.echo(f"Drafted {path}: read and correct it, then `lepton run loop --case {path.parent}`.")


@app.command()
def notebooks(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, first letters or paths; default: all.")
    ] = None,
) -> None:
    """Re-execute stored notebooks; update outputs and minutes."""
    from lepton_lib.classroom.pacing import stamp_minutes
    from lepton_lib.runs import find_notebook, find_notebooks, refresh_notebooks

    paths = [find_notebook(name) for name in names] if names else list(find_notebooks().values())
    with closing(Progress()) as show:
        refresh_notebooks(paths, progress=show)
    for path in paths:
        stamp_minutes(path)
