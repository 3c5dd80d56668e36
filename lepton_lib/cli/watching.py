"""Watching a service: monitor, label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_lib.cli.common import FAILED, RunFolder, Trust

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
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The service's address: its rate, errors and latency, too."
        ),
    ] = None,
    trust: Trust = None,
) -> None:
    """Judge what the service has answered since the last time: report, decide, and with --act do it."""
    from lepton_lib.operations import monitor as look
    from lepton_lib.operations import watch

    if every is not None:
        watch(
            run_dir, every=every * 60, act=act, metrics=metrics, trust=trust or (), tell=typer.echo
        )
    typer.echo(look(run_dir, act=act, metrics=metrics, trust=trust or (), tell=typer.echo))
    typer.echo(f"To read: {run_dir / 'monitoring' / 'report.html'}")


@app.command()
def label(
    run_dir: RunFolder,
    table: Annotated[
        Path, typer.Argument(metavar="LABELS.CSV", help="With the columns id and label.")
    ],
    trust: Trust = None,
) -> None:
    """Attach labels that have come late to their predictions."""
    from lepton_lib.operations import attach_file
    from lepton_lib.serving.log_maintenance import case_of

    count = attach_file(
        run_dir / "service" / "predictions.sqlite", table, case_of(run_dir, trust=trust)
    )
    typer.echo(str(count))
    raise typer.Exit(0 if count.clean else FAILED)
