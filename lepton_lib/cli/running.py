"""Running notebooks, and managing cases: run, doctor, cases, new-case, notebooks."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_lib.cli.common import FAILED, INTERRUPTED, Progress
from lepton_lib.errors import LeptonError, ParameterError, wrap_os_errors
from lepton_lib.utils import CASE_VARIABLE, KEY_REMEDY, check_config_folder, config_folder

app = typer.Typer()


@app.command()
def run(
    notebook: Annotated[
        str,
        typer.Argument(help="A name, its start (02), or a path; 'loop': 00-05; 'industry': all."),
    ] = "loop",
    *,
    case: Annotated[
        str | None, typer.Option(help="The case's name, or a folder with a case.toml.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="PATH", help="The run folder; default: runs/CASE.")
    ] = None,
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
    """Run one notebook, or the whole loop, into a run folder; lessons of a folder into one each."""
    from lepton_lib.runs import RunSummary, find_notebook, run_loop, run_notebook
    from lepton_lib.runs.notebooks import find_lessons, loop_notebooks
    from lepton_lib.runs.parameters import check_parameters, find_case

    values = _overrides(parameter or [], case, out)
    if lessons := find_lessons(notebook):
        _run_lessons(lessons, values, fresh=fresh, whole=whole)
        return
    notebooks = loop_notebooks() if notebook == "loop" else [find_notebook(notebook)]
    os.environ.pop(CASE_VARIABLE, None)
    if loaded := find_case(values):
        os.environ[CASE_VARIABLE] = str(loaded.folder.resolve())  # notebooks find it by its name
        values["case"] = loaded.name
    folder = values.pop("run_dir", "")
    checked = check_parameters(notebooks, values)
    default = next((v["case"] for v in checked.values() if "case" in v), notebooks[0].stem)
    run_dir = Path(folder or f"runs/{default}")
    if loaded and notebook == "loop" and not run_dir.exists():
        from lepton_lib.data import dry_run

        dry_run(loaded)  # a table that 01 would refuse is refused before 00
    if any(path.stem == "04_deployment" for path in notebooks):
        # it signs: say now that it can't, before the others have run
        with wrap_os_errors(config_folder(), got="no room for a signing key", remedy=KEY_REMEDY):
            check_config_folder()
    with _resumable() as show:
        options: Any = {"parameters": values, "progress": show, "whole": whole}
        if notebook == "loop":
            finished = run_loop(run_dir=run_dir, notebooks=notebooks, fresh=fresh, **options)
        else:
            executed = run_notebook(notebooks[0], run_dir=run_dir, **options)
    if notebook == "loop":
        typer.echo(f"\n{RunSummary.of(finished).to_text()}\n")
        typer.echo(f"All of it on one page: {run_dir / 'index.html'}")
    else:
        typer.echo(f"To read: {executed.with_suffix('.html')}")


def _run_lessons(lessons: list[Path], values: dict[str, str], *, fresh: bool, whole: bool) -> None:
    """Run each lesson that isn't done into a run folder of its own: ``OUT/CASE``."""
    from lepton_lib.runs import run_loop
    from lepton_lib.runs.parameters import check_parameters

    if "case" in values:
        remedy = "Name one lesson, such as industry/01, or leave --case out."
        raise ParameterError("--case", "one case", "none: each lesson has its own", remedy)
    folder = Path(values.pop("run_dir", "runs"))
    checked = check_parameters(lessons, values)
    with _resumable() as show:
        for path in lessons:
            own = checked[path.stem]
            run_dir = folder / str(own.get("case", path.stem))
            options: Any = {"progress": show, "fresh": fresh, "whole": whole}
            run_loop(run_dir=run_dir, parameters=own, notebooks=[path], **options)
            page = run_dir / "notebooks" / f"{path.stem}.html"
            typer.echo(f"To read: {page}")


@contextmanager
def _resumable() -> Iterator[Progress]:
    """Show progress; Ctrl-C ends the command with a line that says how to resume."""
    try:
        with closing(Progress()) as show:
            yield show
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command resumes the run.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _overrides(pairs: list[str], case: str | None, out: str | None) -> dict[str, str]:
    """The values of ``-p NAME=VALUE``, ``--case`` and ``--out`` by parameter; each name once."""
    values = {} if case is None else {"case": case}
    if out is not None:
        values["run_dir"] = out
    for pair in pairs:
        name, sign, value = pair.partition("=")
        name = name.strip()
        if not sign or not name:
            raise ParameterError(f"-p {pair}", "no '='", "name=value", "Write -p epochs=10.")
        if name in values:
            raise ParameterError(f"parameter {name!r}", "two values", "one", "Remove one of them.")
        values[name] = value
    if values.get("run_dir") == "":  # an unset variable of the shell
        remedy = "Name one, or leave it out."
        raise ParameterError("the run folder", "an empty text", "a folder", remedy)
    return values


@app.command()
def doctor() -> None:
    """Check this machine, and show how to fix each problem."""
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
        Path | None, typer.Option(help="The new case's folder; default: datasets/NAME.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a text file, if the guess is wrong: cp1252, gb18030.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="binary, multiclass or regression, if the guess is wrong.")
    ] = None,
) -> None:
    """Draft a case from a table, and say what each column was taken for."""
    from lepton_lib.drafting import draft_case

    draft = draft_case(file, target=target, folder=out, encoding=encoding, task=task)
    folder = draft.path.parent
    name = str(folder) if os.sep in str(folder) else f".{os.sep}{folder}"  # a name alone is sought
    typer.echo(f"{draft.to_text()}\n\nDrafted {draft.path}: read and correct it, then")
    typer.echo(f"  lepton run loop --case {shlex.quote(name)}")


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
        untrue = refresh_notebooks(paths, progress=show)
    for path in paths:
        stamp_minutes(path)
    for sentence in untrue:
        typer.echo(sentence, err=True)
    raise typer.Exit(bool(untrue))
