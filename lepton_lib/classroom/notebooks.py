"""Finds the exercises in the course's notebooks and fills in answers. Runs nothing."""

from __future__ import annotations

import ast
import copy
import re
import symtable
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lepton_lib.errors import ParameterError
from lepton_lib.exercises.definitions import Exercise, find_definition
from lepton_lib.runs import find_notebooks
from lepton_lib.runs.notebooks import is_code
from lepton_lib.utils import write_atomic

_KEY = re.compile(r"\bcheck(?:point)?\(\s*[\"']((?:\d\d|[a-z]\d+)\.\w+)[\"']")


def source_folder() -> Path:
    """The folder ``notebooks/`` that the course's notebooks lie in.

    Raises:
        ParameterError: There is none.
    """
    for path in find_notebooks().values():
        return next(parent for parent in path.parents if parent.name == "notebooks")
    remedy = "Go to the course's folder."
    raise ParameterError("notebooks/", "no notebook", "the course's notebooks", remedy)


def write_notebook(path: Path, nb: Any) -> None:
    """Write a notebook's file, whole or not at all."""
    import nbformat

    write_atomic(path, nbformat.writes(nb) + "\n")


def keys_in(source: str) -> list[str]:
    """The keys of the exercises that a cell checks, also where the cell isn't Python."""
    return _KEY.findall(source)


def insert_after_exercises(nb: Any, make_cell: Callable[[str], Any]) -> Any:
    """The notebook with a cell of ``make_cell(key)`` after each exercise."""
    cells: list[Any] = []
    for cell in nb.cells:
        keys = keys_in(cell.source) if cell.cell_type == "code" else []
        cells += [cell, *map(make_cell, keys)]
    nb.cells = cells
    return nb


def check_calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """The calls of ``check`` and ``checkpoint`` with key and answer, and the function's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            name, key = getattr(node.func, "attr", getattr(node.func, "id", "")), node.args[0]
            literal = isinstance(key, ast.Constant) and isinstance(key.value, str)
            if literal and name in {"check", "checkpoint"}:
                yield name, node


def bound_and_read(source: str) -> tuple[set[str], set[str]]:
    """The notebook's names that code binds or changes, and those that it reads.

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
                if symbol.is_assigned() or symbol.is_imported():
                    bound.add(symbol.get_name())
                if symbol.is_referenced():
                    read.add(symbol.get_name())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            bound |= _changed(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            bound |= _changed(node.value.func)  # rows.pop(): perhaps a change
        elif isinstance(node, ast.AugAssign):
            read |= _changed(node.target)
    return bound, read


def _changed(node: ast.expr) -> set[str]:
    """The name that an expression such as ``rows[0].x`` begins with; display(x) changes nothing."""
    root = node
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    if not isinstance(root, ast.Name) or (root is node and not isinstance(root.ctx, ast.Store)):
        return set()
    return {root.id}


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
            cell.source = _fill_cell(cell.source, answers or {})
    return nb


def _fill_cell(source: str, answers: Mapping[str, str]) -> str:
    lines = source.splitlines()
    parts: list[tuple[str, set[str]]] = []  # of the new cell, and the names that each defines
    for statement in ast.parse(source).body:
        calls = list(check_calls(statement))
        for _, call in calls:
            key, letter = call.args
            definition = find_definition(ast.literal_eval(key))
            answer = answers.get(definition.key, definition.answer).strip()
            if isinstance(definition, Exercise):
                bound, _ = bound_and_read(answer)
                parts = [part for part in parts if not part[1] & bound]
                parts.append((f"{answer}\n", set()))
            else:
                line = lines[letter.lineno - 1]
                before, after = line[: letter.col_offset], line[letter.end_col_offset :]
                lines[letter.lineno - 1] = f'{before}"{answer}"{after}'
        text = "\n".join(lines[statement.lineno - 1 : statement.end_lineno])
        parts.append((text, set() if calls else bound_and_read(text)[0]))
    return "\n".join(text for text, _ in parts)
