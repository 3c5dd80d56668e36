"""Small formulas over columns in case.toml: ``amount / price``, ``step < 160 and fault != '0'``.

A formula is parsed once, checked against a short list of what is allowed, and evaluated with
Python's own operators, so the same text works on NumPy arrays, pandas columns and torch tensors
(and is exported with the model's graph). Nothing is ever passed to ``eval``.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.And: operator.and_,
    ast.Or: operator.or_,
}
_Compiled = Callable[[Mapping[str, Any]], Any]
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def _is_condition(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare | ast.BoolOp) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


class Expression:
    """A parsed formula.

    Args:
        text: The formula. Arithmetic ``+ - * /``, comparisons, ``and``, ``or``, ``not``, numbers,
            quoted strings and column names; nothing else.
        arithmetic: Refuse comparisons, logic and strings: what a numeric feature may be made of.

    Raises:
        ValueError: The text is not such a formula; the message names the part at fault.
    """

    def __init__(self, text: str, *, arithmetic: bool = False) -> None:
        self.text = text
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except SyntaxError as error:
            raise ValueError(f"{text!r} is not a formula: {error.msg}") from error
        names: dict[str, None] = {}  # ordered, without repeats
        self.compared: list[tuple[str, Any]] = []  # a column and a constant
        self._body = self._compile(tree.body, names, arithmetic)
        if not names:
            raise ValueError(f"{text!r} names no column")
        if not arithmetic and not _is_condition(tree.body):
            raise ValueError(f"{text!r} is a value, not a condition: compare it with something")
        self.names = tuple(names)

    def __call__(self, columns: Mapping[str, Any]) -> Any:
        """Evaluate over ``columns``: name to array, series or tensor, each ``(n,)``."""
        return self._body(columns)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def _compile(self, node: ast.AST, names: dict[str, None], arithmetic: bool) -> _Compiled:
        def compile_part(part: ast.AST) -> _Compiled:
            return self._compile(part, names, arithmetic)

        def fold(operation: ast.AST, *parts: ast.expr) -> _Compiled:
            compiled, combine = [compile_part(part) for part in parts], _BINARY[type(operation)]
            return lambda columns: reduce(combine, (part(columns) for part in compiled))

        match node:
            case ast.Name(id=name):
                names[name] = None
                return lambda columns: columns[name]
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return lambda _: number
            case ast.Constant(value=str() as word) if not arithmetic:
                return lambda _: word
            case ast.UnaryOp(op=ast.USub(), operand=part):
                inner = compile_part(part)
                return lambda columns: -inner(columns)
            case ast.UnaryOp(op=ast.Not(), operand=part) if not arithmetic and _is_condition(part):
                inner = compile_part(part)
                return lambda columns: ~inner(columns)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
                constant = not any(isinstance(part, ast.Name) for part in ast.walk(right))
                if isinstance(op, ast.Div) and constant and compile_part(right)({}) == 0:
                    where = f"{ast.unparse(node)!r} divides by zero"
                    raise ValueError(f"{where} in the formula {self.text!r}")
                return fold(op, left, right)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if (
                not arithmetic
                and type(op) in _BINARY
                and any(isinstance(part, ast.Name) for part in ast.walk(node))
            ):
                for one, other in ((left, right), (right, left)):
                    if isinstance(one, ast.Name) and isinstance(other, ast.Constant):
                        self.compared.append((one.id, other.value))
                return fold(op, left, right)
            case ast.BoolOp(op=op, values=parts) if not arithmetic and all(
                map(_is_condition, parts)
            ):
                return fold(op, *parts)
        allowed = "+ - * / ( ), numbers and column names"
        if not arithmetic:
            allowed += ", one comparison at a time, 'and', 'or', 'not', quoted strings"
        raise ValueError(
            f"{ast.unparse(node)!r} is not allowed in the formula {self.text!r}; allowed: {allowed}"
        )
