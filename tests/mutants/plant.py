"""The mutants: `mutants` reads a module's syntax tree and changes one place at a time.

It leaves out what no run needs to notice: annotations, docstrings, the words of messages, and what
only a type checker reads. It knows nothing of tests.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
WORDS = {
    "where",
    "got",
    "expected",
    "remedy",
    "help",
    "alt",
    "title",
    "prefix",
}  # keywords that hold words for a reader
CLAIMS = {"strict"}  # zip's: like an assert, of what can't happen
SHOWN = 80  # characters of a piece of code
UNTOUCHED = {"isinstance", "issubclass", "getattr", "hasattr", "TypeVar", "cast"}


@dataclass(frozen=True)
class Mutant:
    """One changed place; its `str` stays the same when code around it moves or is reformatted."""

    module: str  # as in runs/loop.py
    function: str  # its qualified name; empty for the module's own level
    kind: str
    was: str
    now: str
    number: int  # 1 for the first of equal changes in a function
    line: int
    start: int  # bytes of the file that are replaced
    end: int
    text: str  # by this

    def __str__(self) -> str:
        place = ".".join(
            filter(None, (self.module.removesuffix(".py").replace("/", "."), self.function))
        )
        again = f" (#{self.number})" if self.number > 1 else ""
        return f"{place}: {_short(self.was)} -> {_short(self.now)}{again}"

    def plant(self, source: bytes) -> bytes:
        """The module's text with the fault in it."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants(library: Path, module: str) -> list[Mutant]:
    """Every mutant of one module, in the order of its lines."""
    source = (library / module).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for node, function, kind, now in _walk(ast.parse(source), ""):
        was, then = (
            ast.unparse(node),
            "(nothing)" if isinstance(now, ast.Pass) else ast.unparse(now),
        )
        key = (function, was, then)
        seen[key] += 1
        text = ast.unparse(now) if isinstance(now, ast.stmt) else f"({ast.unparse(now)})"
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        found.append(
            Mutant(module, function, kind, was, then, seen[key], node.lineno, start, end, text)
        )
    return found


@functools.cache
def choose(library: Path, count: int, seed: int = 0) -> list[Mutant]:
    """Choose about ``count`` mutants, in proportion to each module's size and over all kinds.

    A place is drawn by the hash of its description, so that a change elsewhere leaves most of the
    choice unchanged.
    """
    modules = sorted(str(path.relative_to(library)) for path in library.rglob("*.py"))
    of = {module: mutants(library, module) for module in modules}
    total = sum(map(len, of.values()))
    chosen: list[Mutant] = []
    for found in of.values():
        kinds: dict[str, list[Mutant]] = defaultdict(list)
        for mutant in sorted(found, key=lambda mutant: _rank(seed, str(mutant))):
            kinds[mutant.kind].append(mutant)
        lanes = sorted(kinds.values(), key=lambda lane: _rank(seed, str(lane[0])))
        in_turn = [mutant for row in zip_longest(*lanes) for mutant in row if mutant is not None]
        lines: dict[int, Mutant] = {}  # one a line
        for mutant in in_turn:
            lines.setdefault(mutant.line, mutant)
        chosen += list(lines.values())[: max(1, round(count * len(found) / total))]
    return sorted(chosen, key=lambda mutant: (mutant.module, mutant.start))


def _short(text: str) -> str:
    """Shorten a text to one line; a hash keeps it distinct from every other."""
    return (
        text
        if len(text) <= SHOWN
        else f"{text[:SHOWN]}… {hashlib.sha256(text.encode()).hexdigest()[:4]}"
    )


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode()).digest()


# the node, its function, the kind of change, the new node
Found = Iterator[tuple[ast.AST, str, str, ast.AST]]


def _walk(node: ast.AST, function: str) -> Found:
    """The changes in a node and all below it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".lstrip(".")
    for change in _changes(node):
        yield node, function, *change
    for child in _children(node):
        yield from _walk(child, function)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What lies below a node and does something when it runs."""
    if isinstance(
        node,
        ast.JoinedStr
        | ast.Assert
        | ast.Import
        | ast.ImportFrom
        | ast.arg
        | ast.match_case
        | ast.Raise,
    ):
        return  # texts, claims, names; and Python 3.11 doesn't know the places within an f-string
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return  # ruff reads it
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"TypeVar", "cast"}:
        return
    for name, value in ast.iter_fields(node):
        if name in {
            "annotation",
            "returns",
            "decorator_list",
            "bases",
            "keywords",
        } and not isinstance(node, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            words = isinstance(child, ast.keyword) and child.arg in WORDS | CLAIMS
            if isinstance(child, ast.AST) and not docstring and not words:
                yield child


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The changes of this very node: the kind, and the node that takes its place."""
    for kind, change in CHANGES.items():
        for now in change(node):
            yield kind, now


def _changed(node: ast.AST, **fields: object) -> ast.AST:
    now = copy.copy(node)
    for name, value in fields.items():
        setattr(now, name, value)
    return now


def _comparison(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            if type(op) in SWAPS:
                yield _changed(node, ops=[*node.ops[:k], SWAPS[type(op)](), *node.ops[k + 1 :]])


def _operator(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS:
        parts = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.value]
        texts = any(
            isinstance(p, ast.JoinedStr)
            or (isinstance(p, ast.Constant) and isinstance(p.value, str))
            for p in parts
        )
        if not texts:
            yield _changed(node, op=SWAPS[type(node.op)]())


def _logic(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BoolOp):
        yield _changed(node, op=SWAPS[type(node.op)]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and not isinstance(node.operand, ast.Constant)
    ):
        yield node.operand


def _condition(node: ast.AST) -> Iterator[ast.AST]:
    """Swap ``a`` and ``b`` in ``a if c else b``; other changes cover the ``if`` statement."""
    if isinstance(node, ast.IfExp):
        yield _changed(node, body=node.orelse, orelse=node.body)


def _constant(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield _changed(node, value=not value)
        elif isinstance(value, int):
            yield _changed(node, value=value + 1)
        elif isinstance(value, float):
            yield _changed(node, value=value * 2 if value else 1.0)
        # a key, a column's or a method's name
        elif isinstance(value, str) and value.isidentifier():
            yield _changed(node, value=f"{value}_")


def _dropped(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        yield ast.Pass()
    if isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete):
        yield ast.Pass()
    if isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple):
        yield ast.Pass()
    if (
        isinstance(node, ast.Return)
        and node.value is not None
        and ast.unparse(node.value) != "None"
    ):
        yield _changed(node, value=ast.Constant(None))


def _arguments(node: ast.AST) -> Iterator[ast.AST]:
    """The first two arguments swapped, or a keyword left out."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] in UNTOUCHED:
        return
    plain = not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    if len(node.args) > 1 and plain and ast.unparse(node.args[0]) != ast.unparse(node.args[1]):
        yield _changed(node, args=[node.args[1], node.args[0], *node.args[2:]])
    for k, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in WORDS | CLAIMS:
            yield _changed(node, keywords=[*node.keywords[:k], *node.keywords[k + 1 :]])


def _name(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in NAMES:
            yield _changed(node, func=ast.Name(NAMES[node.func.id]))
        if isinstance(node.func, ast.Attribute) and node.func.attr in NAMES:
            yield _changed(node, func=_changed(node.func, attr=NAMES[node.func.attr]))


def _slice(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        for end in ("lower", "upper"):
            if getattr(node.slice, end) is not None:
                yield _changed(node, slice=_changed(node.slice, **{end: None}))


CHANGES: dict[str, Callable[[ast.AST], Iterator[ast.AST]]] = {
    "comparison": _comparison,
    "operator": _operator,
    "logic": _logic,
    "condition": _condition,
    "constant": _constant,
    "line dropped": _dropped,
    "argument": _arguments,
    "min and max": _name,
    "slice": _slice,
}
