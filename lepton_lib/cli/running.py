"""Running notebooks and looking after cases: run, doctor, cases, new-case, notebooks."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from lepton_lib.cli.common import FAILED, INTERRUPTED, Progress
from lepton_lib.errors import LeptonError, ParameterError

app = typer.Typer()


@app.command()
def run(
    notebook: Annotated[
        str, typer.Argument(help="A stem, its prefix or a path; 'loop' for 00 to 05.")
    ] = "loop",
    *,
    case: Annotated[
        str | None, typer.Option(help="A case's name, or a folder with a case.toml.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/CASE by default.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME=VALUE", help="A parameter; as often as needed."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run every step, also those that are done already.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Run the cells of exercises and lessons, too.")
    ] = False,
) -> None:
    """Run one notebook, or the whole loop, into a run folder."""
    from lepton_lib.runs import find_notebook, run_loop, run_notebook
    from lepton_lib.runs.parameters import loop_notebooks

    given = _parameters(parameter or [], case, out)
    notebooks = loop_notebooks() if notebook == "loop" else [find_notebook(notebook)]
    if "case" in given:
        given["case"] = _case_by_name(given["case"])
    run_dir = Path(
        given.pop("run_dir", "") or Path("runs", given.get("case") or _default_case(notebooks))
    )
    show = Progress()
    try:
        if notebook == "loop":
            run_loop(
                run_dir=run_dir,
                parameters=given,
                notebooks=notebooks,
                progress=show,
                whole=whole,
                fresh=fresh,
            )
        else:
            executed = run_notebook(
                notebooks[0], run_dir=run_dir, parameters=given, progress=show, whole=whole
            )
    except KeyboardInterrupt:
        show.close()
        typer.echo("Interrupted. The same command goes on from there.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        show.close()
    if notebook == "loop":
        from lepton_lib.artefacts import Run
        from lepton_lib.runs import RunSummary

        typer.echo(
            f"\n{RunSummary.of(Run(run_dir)).to_text()}\n\nAll of it on one page: {run_dir / 'index.html'}"
        )
    else:
        typer.echo(f"To read: {executed.with_suffix('.html')}")


def _parameters(pairs: list[str], case: str | None, out: Path | None) -> dict[str, str]:
    """``name=value`` pairs and the two options as one; each name once."""
    options = [("case", case), ("run_dir", None if out is None else str(out))]
    given = {name: value for name, value in options if value is not None}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise ParameterError(f"-p {pair}", "no '='", "name=value", "Write -p epochs=10.")
        if name.strip() in given:
            raise ParameterError(
                f"parameter {name.strip()!r}", "two values", "one", "Take one of them out."
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


@app.command()
def doctor() -> None:
    """Look at this machine, and name each problem and its mend."""
    from lepton_lib.doctor import examine

    report = examine()
    typer.echo(report.to_text(details=True))
    raise typer.Exit(0 if report.ok else FAILED)


@app.command()
def cases(
    name: Annotated[
        str | None, typer.Argument(help="Check this case's data: a name, or its folder.")
    ] = None,
) -> None:
    """List the cases, or check whether one's data can be read, cleaned, divided and encoded."""
    from lepton_lib.cases import list_cases, load_case

    if name is not None:
        from lepton_lib.data import dry_run

        case = load_case(Path(name) if os.sep in name else name)
        typer.echo(dry_run(case).to_frame().to_string(index=False))
        return
    for entry in list_cases():
        try:
            typer.echo(f"{entry:<16} {load_case(entry).title}")
        except LeptonError as error:
            typer.echo(f"{entry:<16} can't be used: {error}")


@app.command("new-case")
def new_case(
    file: Annotated[
        Path, typer.Argument(help="A table: CSV or TSV, .xlsx, .parquet, .json, .jsonl, .zip.")
    ],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[
        Path | None, typer.Option(help="The new case's folder; datasets/NAME by default.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a text file, if the guess is wrong: cp1252, gb18030.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="binary, multiclass or regression, if the guess is wrong.")
    ] = None,
) -> None:
    """Draft a case from a table, and say what each column was taken for."""
    from lepton_lib.data import draft_case

    draft = draft_case(file, target=target, folder=out, encoding=encoding, task=task)
    folder = draft.path.parent
    name = str(folder) if os.sep in str(folder) else f".{os.sep}{folder}"  # a name alone is sought
    typer.echo(f"{draft.to_text()}\n\nDrafted {draft.path}: read and correct it, then")
    typer.echo(f"  lepton run loop --case {shlex.quote(name)}")


@app.command()
def notebooks(
    names: Annotated[
        list[str] | None, typer.Argument(help="Stems, prefixes or paths; all by default.")
    ] = None,
) -> None:
    """Re-execute stored notebooks; write their outputs back, and how many minutes their sections take."""
    from lepton_lib.classroom.pacing import stamp_minutes
    from lepton_lib.runs import find_notebook, find_notebooks, refresh_notebooks

    paths = [find_notebook(name) for name in names] if names else list(find_notebooks().values())
    show = Progress()
    try:
        refresh_notebooks(paths, progress=show)
    finally:
        show.close()
    for path in paths:
        stamp_minutes(path)
