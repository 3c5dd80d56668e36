"""Watching a service: monitor, label."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from lepton_lib.cli.common import FAILED, CaseOption, RunFolder, Trust, use_case

app = typer.Typer()


@app.command()
def monitor(
    run_dir: RunFolder,
    *,
    act: Annotated[
        bool, typer.Option("--act", help="Retrain, promote and roll back, not only say so.")
    ] = False,
    every: Annotated[
        float | None, typer.Option(min=0.01, metavar="MINUTES", help="Again and again.")
    ] = None,
    trust: Trust = None,
    case: CaseOption = None,
) -> None:
    """Judge what the service has answered since the last time; with --act do what was decided."""
    from lepton_lib import operations

    use_case(case)
    while True:
        step = operations.monitor(run_dir, act=act, trust=trust or (), notify=typer.echo)
        if every is None:
            break
        time.sleep(every * 60)  # a pause, whatever the clock says
    typer.echo(step)
    typer.echo(f"To read: {run_dir / 'monitoring' / 'report.html'}")


@app.command()
def label(
    run_dir: RunFolder,
    table: Annotated[
        Path, typer.Argument(metavar="LABELS.CSV", help="With the columns id and label.")
    ],
    trust: Trust = None,
    case: CaseOption = None,
) -> None:
    """Attach labels that have come late to their predictions."""
    from lepton_lib.operations import attach_file
    from lepton_lib.serving.log_maintenance import case_of

    use_case(case)
    log = run_dir / "service" / "predictions.sqlite"
    count = attach_file(log, table, case_of(run_dir, trust=trust))
    typer.echo(str(count))
    raise typer.Exit(0 if count.clean else FAILED)
