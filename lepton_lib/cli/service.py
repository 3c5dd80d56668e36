"""Deploying a run: serve, predict, install, promote, roll-back, log, container, keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_lib.cli.common import FAILED, CaseOption, RunFolder, Trust, use_case

app = typer.Typer()


@app.command()
def serve(
    run_dir: RunFolder,
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    trust: Trust = None,
    *,
    case: CaseOption = None,
    require_key: Annotated[bool, typer.Option("--require-key", help="Demand an API key.")] = False,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Answer without a key, on any address.")
    ] = False,
) -> None:
    """Serve a run's model over HTTP."""
    from lepton_lib.serving import serve as serve_run

    use_case(case)
    serve_run(
        run_dir,
        host=host,
        port=port,
        workers=workers,
        trust=trust,
        require_key=require_key,
        no_keys=no_keys,
    )


@app.command()
def predict(
    run_dir: RunFolder,
    table: Annotated[Path, typer.Argument(help="A .csv or .parquet file.")],
    out: Annotated[Path, typer.Option(help="Where to: a .csv or .parquet file.")],
    trust: Trust = None,
    *,
    case: CaseOption = None,
    log: Annotated[bool, typer.Option("--log", help="Store in the prediction log, too.")] = False,
) -> None:
    """Score a table with a run's model, through the service's checks."""
    from tqdm import tqdm

    from lepton_lib.serving.tables import predict_table

    use_case(case)
    with tqdm(unit=" rows", disable=None) as bar:  # in a terminal alone
        scored = predict_table(run_dir, table, out, trust=trust, log=log, progress=bar.update)
    typer.echo(scored)
    raise typer.Exit(FAILED if scored.refused else 0)


@app.command()
def install(
    run_dir: RunFolder,
    source: Annotated[Path, typer.Argument(help="A service folder, such as OTHER/service.")],
    trust: Trust = None,
    *,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Also one packaged before an installed one.")
    ] = False,
) -> None:
    """Verify a release and install it beside the run's others."""
    from lepton_lib.serving import releases

    version = releases.install(run_dir, source, trust=trust, allow_older=allow_older)
    typer.echo(f"Installed {version}.")


@app.command()
def promote(run_dir: RunFolder, version: str, trust: Trust = None) -> None:
    """Deploy an installed release: it answers from now on."""
    from lepton_lib.serving import releases

    releases.promote(run_dir, version, trust=trust)
    typer.echo(f"{version} answers.")


@app.command("roll-back")
def roll_back(run_dir: RunFolder, trust: Trust = None) -> None:
    """Roll back to the release before the current one."""
    from lepton_lib.serving import releases

    typer.echo(f"{releases.roll_back(run_dir, trust=trust)} answers.")


@app.command()
def log(
    run_dir: RunFolder,
    *,
    find: Annotated[
        str | None, typer.Option(metavar="ID", help="Show a prediction or request.")
    ] = None,
    erase: Annotated[
        str | None, typer.Option(metavar="ID", help="Remove a prediction or request for good.")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(min=0, metavar="N", help="Remove what is older.")
    ] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Export as a table.")] = None,
    trust: Trust = None,
) -> None:
    """Search, export or prune a run's prediction log."""
    from lepton_lib.serving import log_maintenance

    if all(wish is None for wish in (find, erase, keep_days, parquet)):
        raise typer.BadParameter("choose --find, --parquet, --erase or --keep-days")
    path = run_dir / "service" / "predictions.sqlite"
    if find is not None:
        typer.echo(log_maintenance.describe(run_dir, find, trust=trust))
    if parquet is not None:
        case = log_maintenance.case_of(run_dir, trust=trust)
        typer.echo(f"{log_maintenance.export(path, case, parquet)} predictions in {parquet}.")
    if erase is not None:
        from lepton_lib.serving.erasure import erase_copies

        copies = erase_copies(run_dir, erase, trust=trust)
        typer.echo(f"{log_maintenance.erase(path, erase)} predictions erased.")
        if copies:
            typer.echo(f"{copies} rows erased from tables of retrainings.")
    if keep_days is not None:
        typer.echo(f"{log_maintenance.keep_days(path, keep_days)} requests removed.")


@app.command()
def container(
    run_dir: RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    trust: Trust = None,
) -> None:
    """Write a folder to build a container image from."""
    from lepton_lib.serving.container import write_container

    names = write_container(run_dir, folder, trust=trust)
    typer.echo(f"{len(names)} files in {folder}: read {folder / 'README.md'}.")


keys = typer.Typer(help="API keys of a run's service, and your signing key.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command("add")
def add_key(
    run_dir: RunFolder,
    name: str,
    rate: Annotated[float, typer.Option(help="Requests a second.")] = 100.0,
) -> None:
    """Make a key; it is shown this once."""
    from lepton_lib.serving import api_keys

    typer.echo(api_keys.add_key(api_keys.keys_file(run_dir), name, rate=rate))


@keys.command("list")
def list_keys(run_dir: RunFolder) -> None:
    """Show the keys' names and rates."""
    from lepton_lib.serving import api_keys

    for name, rate in api_keys.list_keys(api_keys.keys_file(run_dir)).items():
        typer.echo(f"{name:<24} {rate:g} requests/s")


@keys.command("revoke")
def revoke_key(run_dir: RunFolder, name: str) -> None:
    """Revoke a key."""
    from lepton_lib.serving import api_keys

    api_keys.revoke_key(api_keys.keys_file(run_dir), name)


@keys.command("signing")
def signing_key() -> None:
    """Show the public key that your releases are signed with; others trust it with --trust."""
    from lepton_lib.serving import signing

    typer.echo(signing.public_key())
