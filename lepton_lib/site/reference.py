"""The pages made from code: the reference of case.toml, and of the library's public names."""

from __future__ import annotations

import functools
import importlib
import tomllib
from pathlib import Path
from typing import Any

from lepton_lib.cases import Case

Schema = dict[str, Any]

# What a lesson or a program imports, in the order of the layers.
MODULES = (
    *("cases", "data", "models", "optimizers", "metrics", "trainer"),
    *("evaluation", "robustness", "explanation", "monitoring"),
    *("plots", "artefacts", "utils", "errors"),
    *("serving", "runs", "operations", "exercises"),
)
_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "table",
}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "minItems": "entries at least",
    "pattern": "like",
}
_CASE_INTRODUCTION = """# Reference of case.toml

Everything that belongs to a problem stands in one file, `datasets/<case>/case.toml`. This page is
made from the models that check it: an unknown key, a wrong type or a missing key is an error that
names the file and the key. [The credit case](/datasets/credit/case.toml) is a whole example, and
`lepton new-case FILE --target COLUMN` drafts one.
"""
_LIBRARY_INTRODUCTION = """# Reference of the library

What the modules of `lepton_lib` offer, made from their docstrings, in the order of a lesson's
imports.
"""


def case_reference() -> str:
    """The Markdown page about case.toml: a section for each table, a row for each key."""
    schema = Case.model_json_schema()
    parts = [_CASE_INTRODUCTION, _section("At the top of the file", schema)]
    sections = list(schema["properties"].items())
    for path, value in sections:  # grows: a section may hold sections
        for heading, name in _references(path, value):
            model = schema["$defs"][name]
            parts.append(_section(f"`{heading}`", model))
            inner = heading.strip("[]").partition(" ")[0]
            sections += [(f"{inner}.{key}", each) for key, each in model["properties"].items()]
    return "\n".join(parts)


def library_reference() -> str:
    """The Markdown page with the contents of the library's reference."""
    summaries = [
        f"- [`lepton_lib.{name}`](/reference/{name}.md): {_summary(name)}" for name in MODULES
    ]
    return _LIBRARY_INTRODUCTION + "\n" + "\n".join(summaries) + "\n"


def module_reference(name: str) -> str:
    """The Markdown page about one module: what its docstrings say."""
    return (
        f"# lepton_lib.{name}\n\n```{{eval-rst}}\n"
        f".. automodule:: lepton_lib.{name}\n   :members:\n   :member-order: bysource\n"
        "   :exclude-members: model_config, model_post_init\n```\n"
    )


def _summary(name: str) -> str:
    text = importlib.import_module(f"lepton_lib.{name}").__doc__ or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def _references(path: str, value: Schema) -> list[tuple[str, str]]:
    """The sections that a key opens, as their heading in TOML and the name of their model."""
    value = _without_null(value)
    if "$ref" in value:
        return [(f"[{path}]", _model_of(value))]
    items = value.get("items", {})
    if "$ref" in items:
        return [(f"[[{path}]]", _model_of(items))]
    if "oneOf" in items:
        kinds = items["discriminator"]["mapping"]
        return [
            (f'[[{path}]] kind = "{kind}"', target.split("/")[-1]) for kind, target in kinds.items()
        ]
    entries = value.get("additionalProperties")
    if isinstance(entries, dict) and "$ref" in entries:
        return [(f"[{path}.NAME]", _model_of(entries))]
    return []


def _section(heading: str, model: Schema) -> str:
    required = model.get("required", [])
    name = model["title"]
    rows = [
        f"| `{key}` | {_type(value)} | {'' if key in required else _default(value)} "
        f"| {_cell(_meaning(name, key, value))} |"
        for key, value in model["properties"].items()
    ]
    table = ["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows]
    return f"\n## {heading}\n\n{model.get('description', '')}\n\n" + "\n".join(table) + "\n"


def _meaning(model: str, key: str, value: Schema) -> str:
    """What a key means: the model's own description, else that of ``pages/case_keys.toml``."""
    names = [model, "Column"] if model.endswith("Column") else [model]
    texts = [_meanings()[name][key] for name in names if key in _meanings().get(name, {})]
    text: str = value.get("description") or (texts or [""])[0]
    return text


@functools.cache
def _meanings() -> dict[str, Any]:
    path = Path(__file__).parent / "pages" / "case_keys.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _type(value: Schema) -> str:
    value = _without_null(value)
    if "const" in value:
        return f'`"{value["const"]}"`'
    if "enum" in value:
        return "one of " + ", ".join(f'`"{each}"`' for each in value["enum"])
    if "$ref" in value:
        return "table, see below"
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}".replace("table, see", "tables, see")
    if "oneOf" in value:
        return "table, see below"
    bounds = [f"{word} `{value[key]}`" for key, word in _BOUNDS.items() if key in value]
    kind = _TYPES.get(value.get("type", ""), "text")
    if value.get("type") == "object" and "propertyNames" in value:
        bounds.append("of " + ", ".join(f"`{name}`" for name in value["propertyNames"]["enum"]))
    return _cell(", ".join([kind, *bounds]))


def _default(value: Schema) -> str:
    if "$ref" in _without_null(value):
        return "none" if value.get("default", 0) is None else "the defaults below"
    default = value.get("default")
    if default is None:
        return "none"
    return f"`{default}`".lower() if isinstance(default, bool) else _cell(f"`{_toml(default)}`")


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _without_null(value: Schema) -> Schema:
    """The schema of a key that may be left out, as if it were always there."""
    kinds = [each for each in value.get("anyOf", []) if each.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else value


def _model_of(value: Schema) -> str:
    name: str = value["$ref"].rpartition("/")[2]
    return name


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
