"""Finds a case by name, reads its case.toml, and says in one sentence what is wrong with it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lepton_lib.cases.schema import Case
from lepton_lib.errors import CaseError
from lepton_lib.utils import course_folders, sha256_of


def _search_path() -> list[Path]:
    """Where cases may lie: LEPTON_DATASETS, then datasets/ here, above, and beside the library."""
    places = [
        Path(entry) for entry in os.environ.get("LEPTON_DATASETS", "").split(os.pathsep) if entry
    ]
    places += course_folders("datasets")
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def list_cases() -> list[str]:
    """The names of the cases that can be loaded by name."""
    return sorted(
        {toml.parent.name for place in _search_path() for toml in place.glob("*/case.toml")}
    )


def load_case(name: str | Path, *, verify: bool = True) -> Case:
    """Read, validate and verify a case.

    Args:
        name: A case's name, such as ``"credit"``, or the path of a folder that holds a case.toml.
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
        raise CaseError(
            str(file), f"text that is not TOML ({error})", "a TOML file in UTF-8", "Mend that line."
        ) from error
    try:
        case = Case.model_validate(_tuples(raw))
    except ValidationError as error:
        raise _explain(file, error) from error
    if case.name != folder.resolve().name:
        raise CaseError(
            f"{file}, key 'name'",
            repr(case.name),
            f"the folder's name, {folder.resolve().name!r}",
            "Rename one of them.",
        )
    case._folder = folder
    for key, part in (("data", case.data), ("records", case.records)):
        if part is not None and verify:
            _verify(file, key, case.path(part.file), part.sha256)
    return case


def _find(name: str | Path) -> Path:
    if isinstance(name, Path) or os.sep in name:
        if (Path(name) / "case.toml").is_file():
            return Path(name)
    else:
        for place in _search_path():
            if (place / name / "case.toml").is_file():
                return place / name
    raise CaseError(
        f"case {str(name)!r}",
        "no such case",
        f"one of {list_cases()}, or a folder that holds a case.toml",
        "Check the name, or make one with `lepton new-case FILE --target COLUMN`.",
    )


def _tuples(value: Any) -> Any:
    """Strict pydantic takes no list for a tuple; TOML has only lists."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def _explain(file: Path, error: ValidationError) -> CaseError:
    problems = error.errors()
    first, others = problems[0], len(problems) - 1
    place = list(first["loc"])
    if place[:1] == ["columns"]:  # pydantic puts a column's kind between its place and its key
        place[2:3] = []
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    key = "".join(parts).lstrip(".") or "(whole file)"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
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


def _verify(file: Path, key: str, path: Path, sha256: str) -> None:
    if not path.is_file():
        raise CaseError(
            f"{file}, key '{key}.file'",
            f"no file {path.name!r}",
            "a file in the case's folder",
            "Put it there, or correct the name.",
        )
    if not path.resolve().is_relative_to(file.parent.resolve()):
        raise CaseError(
            f"{file}, key '{key}.file'",
            f"{path.name!r}, a link that leaves the folder",
            "a file in the case's folder",
            "Copy the file into it.",
        )
    if (actual := sha256_of(path)) != sha256:
        raise CaseError(
            f"{file}, key '{key}.sha256'",
            f"{sha256[:12]}…",
            f"{actual[:12]}…, the hash of {path.name!r} as it lies there",
            f'If the change is wanted, set {key}.sha256 = "{actual}"; if not, bring the file back.',
        )
