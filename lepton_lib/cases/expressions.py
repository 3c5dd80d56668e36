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
from typing import Any, NoReturn

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


def _names(node: ast.AST) -> list[str]:
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


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
        self.text, self._arithmetic = text, arithmetic
        try:
            body = ast.parse(text.strip(), mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"{text!r} is not a formula: {error.msg}") from error
        self.compared: list[tuple[str, Any]] = []  # a column and a constant
        self._evaluate = self._compile(body)
        self.names = tuple(dict.fromkeys(_names(body)))
        if not self.names:
            raise ValueError(f"{text!r} names no column")
        if not arithmetic and not _is_condition(body):
            raise ValueError(f"{text!r} is a value, not a condition: compare it with something")

    def __call__(self, columns: Mapping[str, Any]) -> Any:
        """Evaluate over ``columns``: name to array, series or tensor, each ``(n,)``."""
        return self._evaluate(columns)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def _compile(self, node: ast.AST) -> _Compiled:
        match node:
            case ast.Name(id=name):
                return lambda columns: columns[name]
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return lambda _: number
            case ast.UnaryOp(op=ast.USub(), operand=part):
                inner = self._compile(part)
                return lambda columns: -inner(columns)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
                if isinstance(op, ast.Div) and not _names(right) and self._compile(right)({}) == 0:
                    where = f"{ast.unparse(node)!r} divides by zero"
                    raise ValueError(f"{where} in the formula {self.text!r}")
                return self._fold(op, left, right)
        return self._refuse(node) if self._arithmetic else self._compile_condition(node)

    def _compile_condition(self, node: ast.AST) -> _Compiled:
        match node:
            case ast.Constant(value=str() as word):
                return lambda _: word
            case ast.UnaryOp(op=ast.Not(), operand=part) if _is_condition(part):
                inner = self._compile(part)
                return lambda columns: ~inner(columns)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(
                op
            ) in _BINARY and _names(node):
                for one, other in ((left, right), (right, left)):
                    if isinstance(one, ast.Name) and isinstance(other, ast.Constant):
                        self.compared.append((one.id, other.value))
                return self._fold(op, left, right)
            case ast.BoolOp(op=op, values=parts) if all(map(_is_condition, parts)):
                return self._fold(op, *parts)
        return self._refuse(node)

    def _fold(self, operation: ast.AST, *parts: ast.expr) -> _Compiled:
        compiled, combine = [self._compile(part) for part in parts], _BINARY[type(operation)]
        return lambda columns: reduce(combine, (part(columns) for part in compiled))

    def _refuse(self, node: ast.AST) -> NoReturn:
        allowed = "+ - * / ( ), numbers and column names"
        if not self._arithmetic:
            allowed += ", one comparison at a time, 'and', 'or', 'not', quoted strings"
        where = f"{ast.unparse(node)!r} is not allowed in the formula {self.text!r}"
        raise ValueError(f"{where}; allowed: {allowed}")
