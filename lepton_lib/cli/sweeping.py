"""Many runs: sweep, compare, best."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lepton_lib.cli.common import FAILED, INTERRUPTED
from lepton_lib.errors import ParameterError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from lepton_lib.runs.records import RunRecord

app = typer.Typer()


@app.command()
def sweep(
    notebook: Annotated[str, typer.Argument(help="'loop', or a notebook's name, start or path.")],
    *,
    case: Annotated[str | None, typer.Option(help="The case's name, or its folder.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME=VALUES", help="lr=1e-4,1e-3 or seed=0..9; repeatable."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Each value with each (default).")] = False,
    zipped: Annotated[bool, typer.Option("--zip", help="First with first, and so on.")] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="So many sets of the grid, drawn once for all.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--from", help="A CSV: a column for each parameter.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder; default: sweeps/NOTEBOOK.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only what is missing, failed or out of date.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--fail-fast", help="Go on after a failure, or stop.")
    ] = True,
    retries: Annotated[int, typer.Option(min=0, help="Try a failed run again so often.")] = 0,
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds that one run may take.")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(min=0.5, help="GB that one run may take.")
    ] = None,
    on: Annotated[
        Literal["dask"] | None, typer.Option(help="Make the runs on Dask's workers.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A running Dask scheduler's.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report here.")] = None,
) -> None:
    """Run a notebook or the loop for many parameter sets; leaves a table and a page."""
    from lepton_lib.runs import parameter_sets, results, sweeps
    from lepton_lib.runs.pipeline import Limits
    from lepton_lib.runs.records import read_records

    if grid + zipped + (sample is not None) > 1:
        raise typer.BadParameter("only one of --grid, --zip and --sample")
    values = _values(parameter or [], case)
    rows = parameter_sets.read_table(table) if table else [{}]
    sets = parameter_sets.combine(values, how="zip" if zipped else "grid", sample=sample, rows=rows)
    folder = out or Path("sweeps") / Path(notebook).stem
    at_once = jobs or os.cpu_count() or 1
    shared, runs = sweeps.plan(sweeps.chain_of(notebook), sets, folder.resolve())
    typer.echo(
        f"{len(runs)} runs, {at_once} at a time; {len(shared)} times steps that runs share."
        f"{_estimate(shared + runs, at_once)}",
        err=True,
    )
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(_Bar())
        executor: Executor | None = None
        if on == "dask":
            from lepton_lib.runs.clusters import dask_executor

            executor = stack.enter_context(dask_executor(scheduler, at_once))
        try:
            sweeps.sweep(
                notebook,
                sets,
                out=folder,
                jobs=at_once,
                resume=resume,
                fail_fast=not keep_going,
                limits=Limits(time_limit, int(memory_limit * 1e9) if memory_limit else None),
                retries=retries,
                executor=executor,
                report=bar,
            )
        except KeyboardInterrupt:
            typer.echo("Interrupted. The same command with --resume goes on.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        finally:
            records = list(read_records(folder).values())
            if records:
                page = results.write_results(folder, records, title=f"Sweep of {notebook}")
                typer.echo(f"{len(records)} runs: {page}, {folder / 'runs.parquet'}")
            if junit is not None:
                junit.write_text(results.to_junit(records, notebook))
    names = {task.folder.name for task in runs}
    failed = [record for record in records if record.status == "failed" and record.name in names]
    for record in failed:
        typer.echo(f"failed: {record.name}: {record.reason}", err=True)
    raise typer.Exit(FAILED if failed else 0)


def _values(pairs: list[str], case: str | None) -> dict[str, list[str]]:
    from lepton_lib.runs.parameter_sets import parse_values
    from lepton_lib.runs.parameters import find_case
    from lepton_lib.utils import CASE_VARIABLE

    values: dict[str, list[str]] = {}
    if case is not None and (loaded := find_case({"case": case})):
        os.environ[CASE_VARIABLE] = str(loaded.folder.resolve())
        values["case"] = [loaded.name]
    for pair in pairs:
        name, sign, text = (part.strip() for part in pair.partition("="))
        if not sign or not name:
            raise ParameterError(f"-p {pair}", "no '='", "name=values", "Write -p lr=1e-4,1e-3.")
        if name in values:
            raise ParameterError(f"parameter {name!r}", "given twice", "once", "Join its values.")
        values[name] = parse_values(text)
    return values


def _estimate(tasks: list[Any], jobs: int) -> str:
    """How long it may take, by the seconds that the steps took in an earlier run of the case."""
    from lepton_lib.artefacts import Run
    from lepton_lib.runs.summary import read_steps

    case = next((v["case"] for v in tasks[0].values.values() if "case" in v), "")
    seconds = {step: entry.seconds for step, entry in read_steps(Run("", str(case))).items()}
    total = 0.0
    for task in tasks:
        for path in task.notebooks[task.n_shared :]:
            if path.stem not in seconds:
                return " How long it takes shows when the first has ended."
            total += seconds[path.stem]
    return f" About {total / jobs / 60:.1f} minutes, by the run in runs/{case}."


class _Bar:
    """A bar on stderr: rate, time left, failures; lines where stderr is no terminal."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.n_failed = 0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, record: RunRecord, done: int, total: int) -> None:
        self.n_failed += record.status == "failed"
        if not sys.stderr.isatty():
            typer.echo(f"{done}/{total} {record.status} {record.seconds} s {record.name}", err=True)
            return
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=done - 1, unit="run", disable=False)
        self.bar.set_postfix(failed=self.n_failed, refresh=False)
        self.bar.update(done - self.bar.n)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another.")],
) -> None:
    """Show what differs between two runs: parameters, data, code, versions, metrics."""
    from lepton_lib.runs import results

    rows = results.compare(first, second)
    typer.echo("No difference." if rows.empty else rows.to_string(index=False))


@app.command()
def best(
    folder: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep's folder.")],
    by: Annotated[str, typer.Option(help="A metric.")],
    lowest: Annotated[
        bool | None, typer.Option("--lowest/--highest", help="Which end is best; default: guessed.")
    ] = None,
) -> None:
    """Show a sweep's best parameters, and how far their lead is luck."""
    from lepton_lib.runs import results
    from lepton_lib.runs.records import read_records

    typer.echo(results.best(list(read_records(folder).values()), by, lowest=lowest).to_text())
