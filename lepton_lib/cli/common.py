"""What the commands share: exit codes, the run folder as an argument, a line of progress for each notebook."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lepton_lib.runs import Event

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder in which 04_deployment has run.")
]
Trust = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="A public key whose signature counts; your own by default."),
]


class Progress:
    """One line a notebook on stderr: a bar over its cells in a terminal, else a line when it has ended."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, event: Event) -> None:
        """Show where a notebook is now."""
        terminal = sys.stderr.isatty()
        if event.state == "running" and terminal:
            if self.bar is None:
                from tqdm import tqdm

                form = "{desc:<16} {bar:24} {n_fmt:>3}/{total_fmt} cells {elapsed}"
                # nrows: some terminals say that they have none
                width = min(80, shutil.get_terminal_size().columns)
                self.bar = tqdm(
                    total=event.total,
                    desc=event.notebook,
                    bar_format=form,
                    ncols=width,
                    nrows=24,
                    disable=False,
                )
            self.bar.update(event.done - self.bar.n)
        elif event.state != "running":
            cells = (
                f"{event.done:3}/{event.total} cells {event.seconds:6.1f} s" if event.total else ""
            )
            if self.bar is None or event.state == "failed":
                self.close()
                typer.echo(f"{event.notebook:<16} {event.state:<12} {cells}".rstrip(), err=True)
            self.close()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
