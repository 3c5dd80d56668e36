"""Which notebooks there are, which parameters they take, and whether given values fit."""

from __future__ import annotations

import ast
import difflib
import io
import math
import os
import re
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.artefacts import STEPS
from lepton_lib.cases import load_case
from lepton_lib.errors import ParameterError
from lepton_lib.utils import course_folders

Value = bool | int | float | str
_INTERVAL = re.compile(
    r"(?P<left>[\[(])\s*(?P<low>[^\s,]+)\s*,\s*(?P<high>[^\s,]+)\s*(?P<right>[\])])\s*$"
)
_CHOICE = re.compile(r"one of:\s*(?P<choices>.+)$")
_ARTICLE = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


class Parameter(NamedTuple):
    """One line of a parameters cell: ``epochs = 30  # passes over the training rows [1, 1000]``.

    A comment that ends with an interval or with ``one of: linear, mlp`` bounds the value.
    """

    name: str
    default: Value
    type: type[Value]
    comment: str

    def parse(self, value: object, *, where: str) -> Value:
        """The value in the parameter's own type, from text as people write it or from a Python value.

        Args:
            value: ``"1e-3"``, ``0.001``, ``"true"``...; a bool is no int, an int is a number, 3.0
                is no int.
            where: What an error message calls the parameter.

        Raises:
            ParameterError: It has another type, is out of range, or is none of the choices.
        """
        parsed = (
            _from_text(value, self.type)
            if isinstance(value, str)
            else _from_value(value, self.type)
        )
        if parsed is None:
            raise ParameterError(
                where, repr(value), _ARTICLE[self.type], f"The default is {self.default!r}."
            )
        if (choice := _CHOICE.search(self.comment)) is not None:
            choices = [part.strip() for part in choice["choices"].split(",")]
            if str(parsed) not in choices:
                raise ParameterError(
                    where, repr(parsed), f"one of: {', '.join(choices)}", _nearest(parsed, choices)
                )
        elif (interval := _INTERVAL.search(self.comment)) is not None and isinstance(
            parsed, int | float
        ):
            low, high = float(interval["low"]), float(interval["high"])
            above = parsed > low if interval["left"] == "(" else parsed >= low
            below = parsed < high if interval["right"] == ")" else parsed <= high
            if not (above and below):
                raise ParameterError(
                    where, repr(parsed), f"a value in {interval[0].strip()}", "Choose one in it."
                )
        return parsed


def _from_text(text: str, kind: type[Value]) -> Value | None:
    """The value that a text stands for, None where it stands for none of that type."""
    stripped = text.strip()
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(stripped.lower())
    try:
        return _from_value(int(stripped) if kind is int else float(stripped), kind)
    except ValueError:
        return None


def _from_value(value: object, kind: type[Value]) -> Value | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, bool | str) and type(value) is kind else None
    if kind is float and math.isfinite(value):
        return float(value)
    return value if kind is int and isinstance(value, int) else None


def _nearest(name: object, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), valid, 1, 0.5)
    return f"Did you mean {near[0]!r}?" if near else "Check its spelling."


def find_notebooks() -> dict[str, Path]:
    """The course's notebooks by stem, in order of their paths.

    They lie in ``notebooks/`` under the working directory or one of its parents, else beside the
    library.
    """
    for folder in course_folders("notebooks"):
        found = sorted(folder.rglob("*.ipynb"))
        found = [
            path
            for path in found
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
        if found:
            return {path.stem: path for path in found}
    return {}


def find_notebook(name: str) -> Path:
    """The notebook of that stem (``02_training``), of that unique prefix (``02``), or at that path.

    Raises:
        ParameterError: There is none, or more than one.
    """
    if (path := Path(name)).suffix == ".ipynb" and path.is_file():
        return path.resolve()
    known = find_notebooks()
    matches = (
        [name] if name in known else [stem for stem in known if name and stem.startswith(name)]
    )
    if len(matches) == 1:
        return known[matches[0]]
    raise ParameterError(
        f"notebook {name!r}",
        f"a prefix of {', '.join(matches)}" if matches else "no such notebook",
        f"'loop', or one of: {', '.join(known) or 'none was found under notebooks/'}",
        "Write more of its name." if matches else _nearest(name, list(known)),
    )


def loop_notebooks() -> list[Path]:
    """The notebooks of the loop, in its order.

    Raises:
        ParameterError: One of them isn't there.
    """
    return [find_notebook(step) for step in STEPS]


def tags(cell: Any) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def is_code(cell: Any) -> bool:
    """Whether the cell holds code to run."""
    return bool(cell.cell_type == "code" and cell.source.strip())


def read_notebook(path: Path) -> Any:
    """The notebook, without outputs.

    Raises:
        ParameterError: The file is no notebook.
    """
    import nbformat

    try:
        nb = nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        raise ParameterError(
            str(path), f"a file that can't be read ({error})", "a notebook", "Bring it back."
        ) from error
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook: plain literals in the one cell tagged ``parameters``.

    Raises:
        ParameterError: It's no notebook; it has no such cell or several; a line of it isn't ``name
            = literal``; or a default breaks its own bound.
    """
    nb = read_notebook(notebook)
    cells = [cell for cell in nb.cells if cell.cell_type == "code" and "parameters" in tags(cell)]
    if len(cells) != 1:
        raise ParameterError(
            f"notebook {notebook.stem}",
            f"{len(cells) or 'no'} cell{'s' if len(cells) > 1 else ''} tagged 'parameters'",
            "one code cell with that tag",
            "Tag the cell that holds its parameters, in JupyterLab's property inspector.",
        )
    return _parse_cell(cells[0].source, f"notebook {notebook.stem}, parameters cell")


def _parse_cell(source: str, where: str) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    try:
        lines = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError) as error:
        raise ParameterError(where, str(error), "Python", "Mend that line.") from error
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT
    }
    for line in lines:
        try:
            if not isinstance(line, ast.Assign):
                raise ValueError
            (target,) = line.targets
            default = ast.literal_eval(line.value)
            if (
                not isinstance(target, ast.Name)
                or type(default) not in _ARTICLE
                or target.id in found
            ):
                raise ValueError
        except ValueError as error:
            raise ParameterError(
                f"{where}, line {line.lineno}",
                ast.unparse(line),
                "name = a plain number, text, True or False, each name once",
                "Compute what follows from parameters in the next cell.",
            ) from error
        comment = comments.get(line.end_lineno or line.lineno, "")
        parameter = Parameter(target.id, default, type(default), comment)
        parameter.parse(default, where=f"{where}, default of {target.id!r}")
        found[target.id] = parameter
    return found


def check_parameters(
    notebooks: Sequence[Path], given: Mapping[str, object]
) -> dict[str, dict[str, Value]]:
    """Every parameter of every notebook: what was given where a notebook has it, else its default.

    Args:
        notebooks: The notebooks that are to run. A given name goes to each of them that has it.
        given: Values as text or in their own type.

    Returns:
        The values by notebook's stem and parameter's name.

    Raises:
        ParameterError: A name that none has, or a value that doesn't fit; a notebook without a
            parameters cell.
        CaseError: The case can't be loaded.
    """
    known = {notebook.stem: read_parameters(notebook) for notebook in notebooks}
    valid = sorted({name for parameters in known.values() for name in parameters})
    for name in given:
        if name not in valid:
            raise ParameterError(
                f"parameter {name!r} of {', '.join(known)}",
                "an unknown name",
                f"one of: {', '.join(valid) or 'none, they take no parameter'}",
                _nearest(name, valid),
            )
    checked = {
        stem: {
            name: parameter.parse(
                given.get(name, parameter.default), where=f"parameter {name!r} of {stem}"
            )
            for name, parameter in parameters.items()
        }
        for stem, parameters in known.items()
    }
    for case in dict.fromkeys(
        str(values["case"]) for values in checked.values() if "case" in values
    ):
        load_case(Path(case).absolute() if os.sep in case else case)
    return checked
