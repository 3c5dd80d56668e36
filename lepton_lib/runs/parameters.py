"""Which parameters notebooks take, and whether values fit them."""

from __future__ import annotations

import ast
import contextlib
import io
import math
import re
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lepton_lib.cases import Case, load_case
from lepton_lib.errors import ParameterError
from lepton_lib.runs.notebooks import did_you_mean, read_notebook, tags

Value = bool | int | float | str
_INTERVAL = re.compile(
    r"(?P<left>[\[(])\s*(?P<low>[^\s,]+)\s*,\s*(?P<high>[^\s,]+)\s*(?P<right>[\])])\s*$"
)
_CHOICE = re.compile(r"one of:\s*(?P<choices>.+)$")
_TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


class Parameter(NamedTuple):
    """One line of a parameters cell: ``epochs = 30  # passes over the training rows [1, 1000]``.

    A comment that ends with an interval or with ``one of: linear, mlp`` bounds the value.
    """

    name: str
    default: Value
    type: type[Value]
    comment: str

    def parse(self, value: object, *, where: str) -> Value:
        """Convert a value to the parameter's type, and check its range or choices.

        Args:
            value: Text, such as ``"1e-3"`` or ``"true"``, or a Python value. A bool is no int, an
                int is a number, 3.0 is no int.
            where: How an error message names the parameter.

        Raises:
            ParameterError: It has another type, is out of range, or is none of the choices.
        """
        parsed = _from_value(value, self.type)
        if isinstance(value, str):
            parsed = _from_text(value, self.type)
        if parsed is None:
            remedy = f"The default is {self.default!r}."
            raise ParameterError(where, repr(value), _TYPE_NAMES[self.type], remedy)
        if choice := _CHOICE.search(self.comment):
            choices = [part.strip() for part in choice["choices"].split(",")]
            if str(parsed) not in choices:
                expected = f"one of: {', '.join(choices)}"
                raise ParameterError(where, repr(parsed), expected, did_you_mean(parsed, choices))
        elif isinstance(parsed, int | float) and (interval := _INTERVAL.search(self.comment)):
            low, high = float(interval["low"]), float(interval["high"])
            above = parsed > low if interval["left"] == "(" else parsed >= low
            below = parsed < high if interval["right"] == ")" else parsed <= high
            if not (above and below):
                expected = f"a value in {interval[0].strip()}"
                raise ParameterError(where, repr(parsed), expected, "Choose one in it.")
        return parsed


def _from_text(text: str, kind: type[Value]) -> Value | None:
    """The value that a text stands for; None where it has another type."""
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.strip().lower())
    try:
        return _from_value(int(text) if kind is int else float(text), kind)
    except ValueError:
        return None


def _from_value(value: object, kind: type[Value]) -> Value | None:
    if isinstance(value, bool | str):
        return value if type(value) is kind else None
    if kind is float and isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return value if kind is int and isinstance(value, int) else None


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook: plain literals in the one cell tagged ``parameters``.

    Raises:
        ParameterError: It's no notebook; it has no such cell or several; a line of it isn't
            ``name = literal``; or a default breaks its own bound.
    """
    return parameters_of(read_notebook(notebook), notebook.stem)


def parameters_of(nb: Any, name: str) -> dict[str, Parameter]:
    """The parameters of a notebook that has been read; ``name`` goes into messages.

    Raises:
        ParameterError: As for `read_parameters`.
    """
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    cells = [cell for cell in code if "parameters" in tags(cell)]
    if len(cells) != 1:
        got = f"{len(cells) or 'no'} cell{'s' if len(cells) > 1 else ''} tagged 'parameters'"
        remedy = "Tag the cell that holds its parameters, in JupyterLab's property inspector."
        raise ParameterError(f"notebook {name}", got, "one code cell with that tag", remedy)
    return _parse_cell(cells[0].source, f"notebook {name}, parameters cell")


def _parse_cell(source: str, where: str) -> dict[str, Parameter]:
    try:
        lines = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError) as error:
        raise ParameterError(where, str(error), "Python", "Fix that line.") from error
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    parameters: dict[str, Parameter] = {}
    for line in lines:
        name, default = _assignment(line)
        if name in ("", *parameters):
            expected = "name = a plain number, text, True or False, each name once"
            remedy = "Compute what follows from parameters in the next cell."
            raise ParameterError(
                f"{where}, line {line.lineno}", ast.unparse(line), expected, remedy
            )
        comment = comments.get(line.end_lineno or line.lineno, "")
        parameters[name] = Parameter(name, default, type(default), comment)
        parameters[name].parse(default, where=f"{where}, default of {name!r}")
    return parameters


def _assignment(line: ast.stmt) -> tuple[str, Value]:
    """The name and value of ``name = literal``; an empty name for any other statement."""
    match line:
        case ast.Assign(targets=[ast.Name(id=name)], value=expression):
            with contextlib.suppress(ValueError):
                value = ast.literal_eval(expression)
                return (name if type(value) in _TYPE_NAMES else ""), value
    return "", ""


def check_parameters(
    notebooks: Sequence[Path], overrides: Mapping[str, object]
) -> dict[str, dict[str, Value]]:
    """The value of every parameter of every notebook: the override, else the default.

    Args:
        notebooks: The notebooks to run. An override goes to each that has a parameter of its name.
        overrides: Values as text or in their own type.

    Returns:
        The values by notebook's stem and parameter's name.

    Raises:
        ParameterError: No notebook has a parameter of that name, a value doesn't fit, or a notebook
            has no parameters cell.
        CaseError: The case can't be loaded.
    """
    known = {path.stem: read_parameters(path) for path in notebooks}
    values = check_values(known, overrides)
    for entry in values.values():
        find_case(entry)
    return values


def check_values(
    known: Mapping[str, Mapping[str, Parameter]], overrides: Mapping[str, object]
) -> dict[str, dict[str, Value]]:
    """As `check_parameters`, for notebooks whose parameters have been read; loads no case."""
    valid = sorted({name for parameters in known.values() for name in parameters})
    for unknown in [name for name in overrides if name not in valid]:
        where = f"parameter {unknown!r} of {', '.join(known)}"
        expected = f"one of: {', '.join(valid) or 'none, they take no parameter'}"
        raise ParameterError(where, "an unknown name", expected, did_you_mean(unknown, valid))
    return {
        stem: {
            name: parameter.parse(
                overrides.get(name, parameter.default), where=f"parameter {name!r} of {stem}"
            )
            for name, parameter in parameters.items()
        }
        for stem, parameters in known.items()
    }


def find_case(values: Mapping[str, object]) -> Case | None:
    """The case that the parameter ``case`` names, or whose folder it gives; None without it.

    Raises:
        CaseError: The case can't be loaded.
    """
    if "case" not in values:
        return None
    return load_case(str(values["case"]))
