"""Readings: prose that quotes a run, with the expressions that the run must bear out.

In a Markdown cell tagged ``reading`` an HTML comment follows what a run can change:
``an AUC of 0.854<!-- auc -->``, ``a third<!-- approx(share, 1/3, 0.05) -->``. The claims of a code
cell, a figure's title, part of its alternative text or the right letter of a question, lie in its
metadata: ``{"claims": {"Bad: lower incomes": "low < high"}}``. Each expression is evaluated in the
kernel as it stands after the code cell before it, or after the code cell that makes the claim.

Knows cells and texts; doesn't know kernels.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

from lepton_lib.runs.notebooks import is_code, tags

Value: TypeAlias = bool | int | float | str | None

COMMENT = re.compile(r"<!--\s*(.+?)\s*-->", re.DOTALL)
_NUMBER = re.compile(r"(?P<number>(?:(?<![\w)])[-−])?\d[\d,]*(?:\.\d+)?)(?P<unit>\s?%)?[*_]*$")
# ``approx`` is at hand in each expression; NumPy's and torch's scalars become Python's.
_EVALUATE = """__import__("json").dumps(
    (lambda value: value.item() if hasattr(value, "item") else value)(
        (lambda approx: ({}))(lambda value, target, error: abs(value - target) <= error)
    )
)"""


class Binding(NamedTuple):
    """What a cell says, and the expression that must bear it out."""

    said: str  # the words before the comment, or a claim's own
    expression: str
    number: str = ""  # as it is printed directly before the comment; empty if there is none
    percent: bool = False  # a per cent sign follows the number: the expression is the share
    place: int = 0  # of the comment among its cell's

    def judge(self, value: Value) -> str:
        """Say why this value doesn't bear the words out; empty if it does."""
        if isinstance(value, bool):
            return "" if value else "the condition is false"
        if isinstance(value, str):
            text = self.said.rstrip("*_`\"'”’ ")
            return "" if value and text.endswith(value) else f"the value is {value!r}"
        if not isinstance(value, int | float):
            return f"the value is {value!r}, which is no number, text or condition"
        if not self.number:
            return f"the value is {value!r}, but no number stands before the comment"
        return "" if self.printed(value) == self.number else f"the run gives {self.printed(value)}"

    def printed(self, value: float) -> str:
        """A value with as many digits as the number has, in its form."""
        digits, comma = len(self.number.partition(".")[2]), "," if "," in self.number else ""
        text = f"{Decimal(repr(float(value))) * (100 if self.percent else 1):z{comma}.{digits}f}"
        return text.replace("-", "−") if "−" in self.number else text


def bindings(cell: Any) -> list[Binding]:
    """What a cell binds: the comments of a reading, or the claims of a code cell."""
    if cell.cell_type == "code":
        return [Binding(said, text) for said, text in cell.metadata.get("claims", {}).items()]
    if "reading" not in tags(cell):
        return []
    found, start = [], 0
    for place, comment in enumerate(COMMENT.finditer(cell.source)):
        said = cell.source[start : comment.start()]
        number = _NUMBER.search(said)
        printed, unit = (number["number"], number["unit"]) if number else ("", None)
        expression = " ".join(comment[1].split())
        found.append(Binding(said[-60:], expression, printed, unit is not None, place))
        start = comment.end()
    return found


def bound_after(cells: Sequence[Any], index: int) -> Iterator[tuple[Any, Binding]]:
    """Each binding to evaluate after the code cell of that index: its own, then its readings'."""
    yield from ((cells[index], binding) for binding in bindings(cells[index]))
    for cell in cells[index + 1 :]:
        if is_code(cell):
            return
        yield from ((cell, binding) for binding in bindings(cell))


def user_expressions(bound: Sequence[tuple[Any, Binding]]) -> dict[str, str]:
    """The bindings' expressions as a kernel's ``user_expressions``."""
    return {str(k): _EVALUATE.format(binding.expression) for k, (_, binding) in enumerate(bound)}


class Verdict(NamedTuple):
    """A binding that a kernel evaluated."""

    cell: Any
    binding: Binding
    value: Value  # None where the expression failed
    problem: str  # empty where the run bears the words out


def verdicts(
    bound: Sequence[tuple[Any, Binding]], replies: Mapping[str, Mapping[str, Any]]
) -> Iterator[Verdict]:
    """Judge each binding by the kernel's reply to its expression."""
    for key, (cell, binding) in enumerate(bound):
        reply = replies[str(key)]
        if reply["status"] != "ok":
            problem, value = f"{reply['ename']}: {reply['evalue']}", None
        else:
            value = json.loads(ast.literal_eval(reply["data"]["text/plain"]))
            problem = binding.judge(value)
        yield Verdict(cell, binding, value, problem)


def update(judged: Sequence[Verdict]) -> list[str]:
    """Write the run's numbers into the readings; list what only an author can put right."""
    left = []
    for verdict in judged:
        if not verdict.problem:
            continue
        binding, value = verdict.binding, verdict.value
        if binding.number and isinstance(value, int | float) and not isinstance(value, bool):
            _replace(verdict.cell, binding, binding.printed(value))
        else:
            left.append(f"cell {verdict.cell.id!r}: {describe(verdict)}")
    return left


def describe(verdict: Verdict) -> str:
    """A binding that doesn't hold, in one sentence."""
    said = " ".join(verdict.binding.said.split())
    return f"the run doesn't bear out {said!r}: {verdict.binding.expression}: {verdict.problem}"


def _replace(cell: Any, binding: Binding, printed: str) -> None:
    comment = list(COMMENT.finditer(cell.source))[binding.place]
    begin = comment.start() - len(binding.said) + binding.said.rindex(binding.number)
    end = begin + len(binding.number)
    cell.source = cell.source[:begin] + printed + cell.source[end:]


def drop_untrue(nb: Any, judged: Sequence[Verdict]) -> None:
    """Take the readings that this run doesn't bear out from a notebook that ran."""
    untrue = {id(verdict.cell) for verdict in judged if verdict.problem}
    nb.cells = [cell for cell in nb.cells if "reading" not in tags(cell) or id(cell) not in untrue]
