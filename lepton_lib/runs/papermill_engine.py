"""papermill's engine ``lepton``: ``papermill IN.ipynb OUT.ipynb --engine lepton -p epochs 10``.

Checks the parameters as `lepton run` does, and fails where papermill's own engine calls a notebook
completed: a dead kernel, and ``sys.exit()``. It runs whole notebooks, and leaves out of the result
the readings that the run doesn't bear out. Doesn't know run folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager
from papermill.translators import translate_parameters

from lepton_lib.errors import NotebookError
from lepton_lib.runs.execution import NotebookExecution
from lepton_lib.runs.notebooks import is_code, tags
from lepton_lib.runs.parameters import Value, check_values, find_case, parameters_of
from lepton_lib.runs.readings import drop_untrue
from lepton_lib.utils import CASE_VARIABLE


class CheckedEngine(Engine):  # type: ignore[misc]  # papermill has no types
    """Runs a parameterised notebook in a forked process; elsewhere than on Linux in a kernel."""

    @classmethod
    def execute_managed_notebook(  # noqa: PLR0917  # its base's
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: IO[str] | None = None,
        stderr_file: IO[str] | None = None,
        execution_timeout: int | None = None,
        **_: object,
    ) -> None:
        """Check the parameters, write their values into the notebook, and run it.

        Raises:
            ParameterError: A parameter has an unknown name, a wrong type, or is out of range.
            CaseError: The case can't be loaded.
            NotebookError: A cell didn't run to its end.
        """
        values = _insert_checked(nb_man.nb, kernel_name)
        case = find_case(values)
        name = Path(nb_man.nb.metadata.papermill.get("input_path") or "notebook").stem
        execution = _ManagedExecution(
            nb_man.nb,
            name=name,
            folder=Path.cwd(),
            traceback_in=nb_man.nb.metadata.papermill.get("output_path") or "its outputs",
            timeout=execution_timeout,
            environment={CASE_VARIABLE: str(case.folder.resolve())} if case else {},
        )
        execution.nb_man = nb_man
        execution.logging = {
            "log_output": log_output,
            "stdout_file": stdout_file,
            "stderr_file": stderr_file,
        }
        if nb_man.pbar:
            nb_man.pbar.reset(total=sum(map(is_code, nb_man.nb.cells)))
        execution.run()
        drop_untrue(nb_man.nb, execution.verdicts)


class _ManagedExecution(NotebookExecution):
    """Tells papermill what happens: it keeps the times and saves the notebook after each cell."""

    nb_man: NotebookExecutionManager
    logging: dict[str, Any]

    def new_client(self, **options: Any) -> Any:
        return PapermillNotebookClient(self.nb_man, **self.logging, **options)

    async def _run_cell(self, client: Any, cell: Any, index: int) -> None:
        self.nb_man.cell_start(cell, index)
        try:
            await super()._run_cell(client, cell, index)
        except NotebookError:
            self.nb_man.cell_exception(cell, index)
            raise
        finally:
            self.nb_man.cell_complete(cell, index)


def _insert_checked(nb: Any, kernel_name: str) -> dict[str, Value]:
    """Replace papermill's values by those that the notebook's parameters make of them."""
    given = nb.metadata.papermill.get("parameters", {})
    if not given:
        return {}
    checked = check_values({"the notebook": parameters_of(nb, "the notebook")}, given)
    values = {name: checked["the notebook"][name] for name in given}
    cell = next(cell for cell in nb.cells if "injected-parameters" in tags(cell))
    cell.source = translate_parameters(kernel_name, "python", values, "Parameters")
    return values
