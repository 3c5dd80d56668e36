"""Finds the exercises in a notebook's cells, and puts code in place of what a reader writes. Runs nothing."""

from __future__ import annotations

import ast
import copy
import re
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
    raise ParameterError("notebooks/", got="no notebook", expected="the course's notebooks", remedy=remedy)


def keys_in(source: str) -> list[str]:
    """The keys of the exercises that a cell checks, also where the cell isn't Python."""
    return _KEY.findall(source)


def check_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls of ``check`` and ``checkpoint`` with a key and an answer, however they are reached."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2 and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in {"check", "checkpoint"} and isinstance(node.args[0].value, str):
                yield node


def names(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The names that code binds or changes, and those that it reads."""
    bound: set[str] = set()
    read: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            bound |= _root(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            bound |= (
                _root(node.value.func) if isinstance(node.value.func, ast.Attribute) else set()
            )  # rows.pop(): a change
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            read.add(node.target.id)
    return bound, read


def _root(node: ast.expr) -> set[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def fill_in(nb: Any, answers: Mapping[str, str] | None = None) -> Any:
    """A copy of the notebook in which every exercise is answered.

    What stands before the call of ``check`` or ``checkpoint`` gives way to the answer; imports, and what the answer
    reads without defining it, stay.

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
    parts: list[str] = []
    before: list[ast.stmt] = []
    for statement in ast.parse(source).body:
        calls = list(check_calls(statement))
        if not calls:
            before.append(statement)
            continue
        for call in calls:
            assert isinstance(call.args[0], ast.Constant)
            definition = find_definition(str(call.args[0].value))
            answer = answers.get(definition.key, definition.answer).strip()
            if isinstance(definition, Exercise):
                parts += [*_kept(before, ast.parse(answer), lines), answer]
            else:
                row, given = call.args[1].lineno - 1, call.args[1]
                lines[row] = f'{lines[row][: given.col_offset]}"{answer}"{lines[row][given.end_col_offset :]}'
        parts.append("\n".join(lines[statement.lineno - 1 : statement.end_lineno]))
        before = []
    return "\n\n".join([*parts, *("\n".join(lines[s.lineno - 1 : s.end_lineno]) for s in before)])


def _kept(statements: list[ast.stmt], answer: ast.AST, lines: list[str]) -> Iterator[str]:
    """The statements that the answer needs, as text: imports together, then the rest."""
    bound, wanted = names(answer)
    wanted -= bound
    kept: list[ast.stmt] = []
    for statement in reversed(statements):
        binds, reads = names(statement)
        if isinstance(statement, ast.Import | ast.ImportFrom) or binds & wanted:
            kept.insert(0, statement)
            wanted |= reads - bound
    if kept:
        yield "\n".join("\n".join(lines[s.lineno - 1 : s.end_lineno]) for s in kept)
