"""Finds a case by name, reads its case.toml, and says in one sentence what is wrong with it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lepton_lib.cases.schema import Case
from lepton_lib.errors import CaseError
from lepton_lib.utils import CASE_VARIABLE, NO_COURSE, course_folders, sha256_of


def _search_path() -> list[Path]:
    """Where cases may lie: LEPTON_DATASETS, then datasets/ here, above, and beside the library."""
    entries = os.environ.get("LEPTON_DATASETS", "").split(os.pathsep)
    places = [*map(Path, filter(None, entries)), *course_folders("datasets")]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def list_cases() -> list[str]:
    """The names of the cases that can be loaded by name."""
    files = [toml for place in _search_path() for toml in place.glob("*/case.toml")]
    return sorted({toml.parent.name for toml in files})


def load_case(name: str | Path, *, verify: bool = True) -> Case:
    """Read, validate and verify a case.

    Args:
        name: A case's name, such as ``"credit"``, or the path of a folder that holds a case.toml.
            The environment's ``LEPTON_CASE`` is the folder of one that is found by its name first.
        verify: Compare the data files with their hashes. Only a step that makes such a file has
            reason not to.

    Raises:
        CaseError: No such case; or the file, a key of it, a data file or a hash is wrong: which,
            got, expected, remedy.
    """
    folder = _find(name)
    file = folder / "case.toml"
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        got = f"text that is not TOML ({error})"
        raise CaseError(str(file), got, "a TOML file in UTF-8", "Correct that line.") from error
    try:
        case = Case.model_validate(_tuples(raw))
    except ValidationError as error:
        raise _explain(file, raw, error) from error
    if case.name != folder.resolve().name:
        where, expected = f"{file}, key 'name'", f"the folder's name, {folder.resolve().name!r}"
        raise CaseError(where, repr(case.name), expected, "Rename one of them.")
    case._folder = folder
    for key, part in (("data", case.data), ("records", case.records)):
        if part is not None and verify:
            _verify(file, key, case.path(part.file), part.sha256)
    return case


def _find(name: str | Path) -> Path:
    folders = [Path(name)] if name else []
    if isinstance(name, str) and os.sep not in name:
        own = Path(os.environ.get(CASE_VARIABLE, ""))
        folders = [place / name for place in _search_path()] + folders
        folders = [own, *folders] if name and own.name == name else folders
    for folder in folders:
        if (folder / "case.toml").is_file():
            return folder
    known = list_cases()
    remedy = "Check the name, or make one with `lepton new-case FILE --target COLUMN`."
    raise CaseError(
        f"case {str(name)!r}",
        "no such case",
        f"one of {known}, or a folder that holds a case.toml",
        remedy if known else NO_COURSE,
    )


def _tuples(value: Any) -> Any:
    """Strict pydantic takes no list for a tuple; TOML has only lists."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def _explain(file: Path, raw: dict[str, Any], error: ValidationError) -> CaseError:
    problems = error.errors()
    first, others = problems[0], len(problems) - 1
    place = list(first["loc"])
    if place[:1] == ["columns"]:  # pydantic puts a column's kind between its place and its key
        place[2:3] = []
    key = _name_key(raw, place)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message, _, got = message.partition("; got ")
    if not got:
        got = "a contradiction" if isinstance(first["input"], dict) else repr(first["input"])
    remedy = "Correct that key."
    if first["type"] == "extra_forbidden":
        message, remedy = "no key of that name", "Check its spelling, or take it out."
    if first["type"] in ("missing", "union_tag_not_found"):
        got, message = "nothing", "a value"
    if first["type"].startswith("union_tag"):
        key += ".kind"
    if first["type"] == "union_tag_invalid":
        got, message = repr(first["ctx"]["tag"]), f"one of {first['ctx']['expected_tags']}"
    if others:
        remedy += f" ({others} more problem{'s' if others > 1 else ''} after this one.)"
    return CaseError(f"{file}, key '{key}'", got, message, remedy)


def _name_key(raw: Any, place: list[int | str]) -> str:
    """A key's place as a person finds it: ``columns[age].min``, not ``columns[3].min``."""
    key = ""
    for part in place:
        try:
            raw = raw[part]
        except (LookupError, TypeError):
            raw = None
        name = raw.get("name", part) if isinstance(part, int) and isinstance(raw, dict) else part
        key += f"[{name}]" if isinstance(part, int) else f".{part}"
    return key.lstrip(".") or "(whole file)"


def _verify(file: Path, key: str, path: Path, sha256: str) -> None:
    where, expected = f"{file}, key '{key}.file'", "a file in the case's folder"
    if not path.is_file():
        raise CaseError(where, f"no file {path.name!r}", expected, "Put it there.")
    if not path.resolve().is_relative_to(file.parent.resolve()):
        got = f"{path.name!r}, a link that leaves the folder"
        raise CaseError(where, got, expected, "Copy the file into it.")
    if (actual := sha256_of(path)) != sha256:
        where, got = f"{file}, key '{key}.sha256'", f"{sha256[:12]}…"
        expected = f"{actual[:12]}…, the hash of {path.name!r} as it lies there"
        remedy = f'If the change is wanted, set {key}.sha256 = "{actual}"; if not, restore it.'
        raise CaseError(where, got, expected, remedy)
