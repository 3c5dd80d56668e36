"""Finds the exercises in a notebook's cells, and puts code in place of what a reader writes. Runs nothing."""

from __future__ import annotations

import ast
import copy
import re
import symtable
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lepton_lib.errors import ParameterError
from lepton_lib.exercises.definitions import Exercise, find_definition
from lepton_lib.runs import find_notebooks
from lepton_lib.runs.parameters import is_code

_KEY = re.compile(r"\bcheck(?:point)?\(\s*[\"'](\d\d\.\w+)[\"']")


def source_folder() -> Path:
    """The folder ``notebooks/`` that the course's notebooks lie in.

    Raises:
        ParameterError: There is none.
    """
    for path in find_notebooks().values():
        return next(parent for parent in path.parents if parent.name == "notebooks")
    remedy = "Go to the course's folder."
    raise ParameterError("notebooks/", "no notebook", "the course's notebooks", remedy)


def keys_in(source: str) -> list[str]:
    """The keys of the exercises that a cell checks, also where the cell isn't Python."""
    return _KEY.findall(source)


def check_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls of ``check`` and ``checkpoint`` with a key and an answer, however they are reached."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and len(node.args) == 2
            and isinstance(node.args[0], ast.Constant)
        ):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in {"check", "checkpoint"} and isinstance(node.args[0].value, str):
                yield node


def names(source: str) -> tuple[set[str], set[str]]:
    """The names of the notebook that code binds or changes, and those that it reads.

    Raises:
        SyntaxError: It isn't Python.
    """
    bound: set[str] = set()
    read: set[str] = set()
    tables = [symtable.symtable(source, "cell", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if table.get_type() == "module" or symbol.is_global():
                bound |= (
                    {symbol.get_name()} if symbol.is_assigned() or symbol.is_imported() else set()
                )
                read |= {symbol.get_name()} if symbol.is_referenced() else set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            bound |= _root(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            bound |= _root(node.value.func)  # rows.pop(): perhaps a change
        elif isinstance(node, ast.AugAssign):
            read |= _root(node.target)
    return bound, read


def _root(node: ast.expr) -> set[str]:
    whole = node
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    direct = node is whole and not isinstance(
        getattr(node, "ctx", None), ast.Store
    )  # display(x) doesn't change display
    return {node.id} if isinstance(node, ast.Name) and not direct else set()


def fill_in(nb: Any, answers: Mapping[str, str] | None = None) -> Any:
    """A copy of the notebook in which every exercise is answered.

    The answer takes the place of what defines the same names before the call of ``check`` or
    ``checkpoint``; imports and given values stay.

    Args:
        nb: The notebook, as the course has it.
        answers: Code by key, for a question a letter; the right answers for the rest.

    Raises:
        ExerciseError: A key has no definition.
    """
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        if is_code(cell) and keys_in(cell.source):
            cell.source = _filled(cell.source, answers or {})
    return nb


def _filled(source: str, answers: Mapping[str, str]) -> str:
    lines = source.splitlines()
    parts: list[tuple[str, set[str]]] = []  # of the new cell, and the names that each defines
    for statement in ast.parse(source).body:
        calls = list(check_calls(statement))
        for call in calls:
            assert isinstance(call.args[0], ast.Constant)
            definition = find_definition(str(call.args[0].value))
            answer = answers.get(definition.key, definition.answer).strip()
            if isinstance(definition, Exercise):
                bound = names(answer)[0]
                parts = [(text, defined) for text, defined in parts if not defined & bound]
                parts.append((f"{answer}\n", set()))
            else:
                row, given = call.args[1].lineno - 1, call.args[1]
                lines[row] = (
                    f'{lines[row][: given.col_offset]}"{answer}"{lines[row][given.end_col_offset :]}'
                )
        text = "\n".join(lines[statement.lineno - 1 : statement.end_lineno])
        parts.append((text, set() if calls else names(text)[0]))
    return "\n".join(text for text, _ in parts)
