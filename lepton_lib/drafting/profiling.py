"""What a column of text seems to be: numbers, moments, words or nothing to learn from, and why."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lepton_lib.cases import CategoryColumn, Column, NumberColumn, TextColumn, TimestampColumn
from lepton_lib.cases.columns import LARGEST
from lepton_lib.cases.formats import MINUS, MomentFormat, NumberFormat
from lepton_lib.cases.moments import PARTS, count_part
from lepton_lib.drafting.sources import conventions

MAX_CATEGORIES = 30  # of more distinct words the commonest are categories, the rest one of them
MIN_CATEGORY_ROWS = 5  # of a word that is a category of its own among that many
MIN_COVERED = 0.2  # of the rows by such words: else the column is free text
MOST = 0.9  # a column with such a share of numbers (or moments) is one with mistakes in it
SAMPLE = 2_000  # distinct cells from which a format is judged
OTHER = "other"
_ID_HEADER = re.compile(
    r"(^|[\s_.-])(?i:id|uid|uuid|guid|index|key|no|nr|row|rownames)$|[a-z]I[Dd]$|^(?i:unnamed.*)?$"
)
_NUMBER = re.compile(
    rf"\(?\s*[-+{MINUS}]?\s*([^\d\s.,()+'-]*[^\d\s,()+'-]?)\s*[-+{MINUS}]?\s*"
    r"((?:\d[\d.,'\u2019\s]*|[.,])\d+|\d[.,]?)(?:[eE][-+]?\d+)?\s*([^\d\s()]*[²³]?)\s*\)?"
)


def is_missing(values: pd.Series, *, numbers: bool = False) -> pd.Series:
    """Which cells are empty or hold a mark for a missing value: bool ``(n,)``."""
    known = conventions()
    marks = [*known["missing"], *(known["missing_numbers"] if numbers else ())]
    return values.str.lower().isin(["", *marks])


def _sample(values: pd.Series) -> pd.Series:
    return values.drop_duplicates().iloc[:SAMPLE]


def prefers_comma(frame: pd.DataFrame, delimiter: str) -> bool:
    """Whether the table's numbers have decimal commas, by those that can't be read otherwise."""
    votes: Counter[str] = Counter()
    for name in frame:
        cells = _sample(frame[name].iloc[:SAMPLE])
        for mark in ".,":
            clear = rf"\D*(?:\d+[{mark}](?:\d\d?|\d{{4,}})|0[{mark}]\d+)\D*"
            votes[mark] += bool(cells.str.fullmatch(clear).mean() > 0.3)
    return votes[","] > votes["."] or (not votes.total() and delimiter == ";")


def find_number_format(cells: pd.Series, *, comma: bool) -> NumberFormat | None:
    """The format in which most of these distinct cells are numbers; None if they are none."""
    matches = [match for match in map(_NUMBER.fullmatch, cells) if match]
    if not matches or len(matches) < MOST * len(cells):
        return None
    count = Counter(match[group] for match in matches for group in (1, 3) if match[group])
    units = {match[3] for match in matches}
    everywhere = len(units) == 1 and len(*units) < 6  # a sign that all cells have tells nothing
    signs = [sign for sign in count if _is_sign(sign) or (everywhere and sign in units)]
    accounting = bool(cells.str.startswith("(").any())
    plain = not cells.str.contains("[.,' \u00a0\u2009\u202f\u2019]").any()
    here, there = (",", ".") if comma else (".", ",")
    marks = [(here, ""), (here, there), (there, ""), (there, here)]
    marks += product((here, there), " '")
    rules: dict[str, Any] = {"signs": tuple(sorted(signs)), "accounting": accounting}
    formats = [
        NumberFormat.model_validate(rules | {"decimal": decimal, "thousands": group})
        for decimal, group in ([(".", "")] if plain else marks)
    ]
    counts = [int(form.read_numbers(cells).notna().sum()) for form in formats]
    best = int(np.argmax(counts))
    return formats[best] if counts[best] >= MOST * len(cells) else None


def _is_sign(text: str) -> bool:
    symbol = any(unicodedata.category(letter) == "Sc" for letter in text)
    return symbol or text in conventions()["signs"]


def find_moment_format(cells: pd.Series) -> tuple[MomentFormat | None, str]:
    """The format in which most of these distinct cells are moments, and a doubt about it."""
    formats: list[str] = []
    doubt, rest, known = "", cells, conventions()
    while len(rest) and len(formats) < 3:
        every = map("".join, product(known["days"], known["clocks"]))
        possible = [form for form in every if _matches(rest.iloc[0], form)]
        reads = {f: pd.to_datetime(rest, format=f, errors="coerce") for f in possible}
        if not reads:
            break
        most = max(int(read.notna().sum()) for read in reads.values())
        equal = [f for f, read in reads.items() if read.notna().sum() == most]
        if len(equal) > 1:
            equal.sort(key=lambda f: -abs(float(np.sign(reads[f].diff().dt.days).mean())))
            doubt = f"read as {equal[0]}, but {equal[1]} fits too: check day and month"
        formats.append(equal[0])
        rest = rest[reads[equal[0]].isna()]
    for tried, offset in product(((), tuple(formats)), ("error", "drop")):
        form = MomentFormat.model_validate({"formats": tried, "offset": offset})
        if form.read_moments(cells).notna().sum() >= MOST * len(cells):
            return form, doubt if form.formats else ""
    return None, ""


def _matches(cell: str, form: str) -> bool:
    try:
        return bool(datetime.strptime(cell, form))
    except ValueError:
        return False


def profile_column(
    values: pd.Series, base: dict[str, Any], *, comma: bool
) -> tuple[Column, str, str]:
    """Describe one column: as drafted, what it was taken for, and what its reader should know.

    Args:
        values: Its cells ``(n,)``, stripped.
        base: What is known: ``name``, ``source``, ``meaning``.
        comma: Whether the table's numbers have decimal commas.
    """
    header = str(base.get("source", base["name"]))
    there = values[~is_missing(values)]
    strict = there[~is_missing(there, numbers=True)]
    cells = _sample(strict)
    long = cells.str.fullmatch(r"[-+]?\d{16,}").any()  # float64 holds fifteen digits exactly
    form = None if long else find_number_format(cells, comma=comma)
    moment, doubt = find_moment_format(cells) if len(cells) and not form else (None, "")
    if form:
        there, guess = strict, _number(strict, form, header)
    elif moment:
        there, guess = strict, _moment(strict, moment, doubt)
    else:
        guess = _words(there)
    rules = base | guess.rules
    rules["missing"] = tuple(sorted(set(values.drop(there.index)) - {""}))
    rules["nullable"] = len(there) < len(values) or "on_invalid" in guess.rules
    if guess.left_out:
        rules["role"] = "ignored"
    if not _is_sensitive(header) or guess.left_out or not hasattr(guess.column, "groups"):
        rules.pop("cuts", None)
    elif rules.get("cuts", True):
        rules["sensitive"] = True
    return guess.column(**rules), guess.kind, guess.left_out or guess.remark


def _is_sensitive(header: str) -> bool:
    text = re.sub(r"[\W_]+", " ", header).lower()
    # Chinese, Japanese and Korean don't divide words
    patterns = (w if w[0] > "\u2e80" else rf"\b{w}\b" for w in conventions()["sensitive"])
    return any(re.search(pattern, text) for pattern in patterns)


class _Guess(NamedTuple):
    """A kind of column with its rules, in words; why no model should see it, or what is odd."""

    column: Any
    rules: dict[str, Any]
    kind: str
    left_out: str = ""
    remark: str = ""


def _mistakes(there: pd.Series, parsed: pd.Series) -> tuple[dict[str, Any], str]:
    """The key for cells that are none of their column's kind, and what they are."""
    if not (wrong := there[parsed.isna()]).size:
        return {}, ""
    remark = f"{len(wrong)} cells become missing: {list(wrong.drop_duplicates()[:3])}"
    return {"on_invalid": "missing"}, remark


def _number(there: pd.Series, form: NumberFormat, header: str) -> _Guess:
    rules = form.model_dump(exclude_defaults=True)
    numbers = form.read_numbers(there).where(lambda n: n.abs() <= LARGEST)
    known = numbers.dropna()
    mistakes, remark = _mistakes(there, numbers)
    low, high = widen(known)
    cuts = tuple(sorted({float(f"{cut:.3g}") for cut in known.quantile([1 / 3, 2 / 3])}))
    unit = form.signs[0] if len(form.signs) == 1 else ""
    kind = "number" + ", decimal comma" * (form.decimal == ",")
    kind += f", thousands {form.thousands!r}" * bool(form.thousands)
    kind += f", with {' '.join(form.signs)}" * bool(form.signs)
    kind += ", (…) negative" * form.accounting
    left_out = "one value only" if known.nunique() < 2 else ""
    if known.is_unique and len(known) > 2 and (known % 1 == 0).all():
        counted = bool((known.diff().iloc[1:] == 1).all())
        left_out = "numbers the rows" if counted else left_out
        if not counted and _ID_HEADER.search(header):
            left_out = "identifiers: all different"
    rules |= mistakes | {"min": low, "max": high, "unit": unit, "cuts": cuts}
    return _Guess(NumberColumn, rules, kind, left_out, remark)


def widen(numbers: pd.Series) -> tuple[float, float]:
    """The range seen with half its width as room on each side, rounded; zero stays a bound."""
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and high <= 1 and (numbers % 1 == 0).all():
        return 0, 1
    room = (high - low) / 2
    step = 10.0 ** np.floor(np.log10(room)) if room > 0 else 1.0
    least = max(float(f"{np.floor((low - room) / step) * step:.12g}"), -LARGEST)
    most = min(float(f"{np.ceil((high + room) / step) * step:.12g}"), LARGEST)
    return (0.0 if low >= 0 > least else least), (0.0 if high <= 0 < most else most)


def _moment(there: pd.Series, form: MomentFormat, doubt: str) -> _Guess:
    moments = form.read_moments(there)
    mistakes, remark = _mistakes(there, moments)
    parts = tuple(part for part in PARTS if count_part(moments.dropna(), part).nunique() > 1)
    kind = " ".join(["moment", *form.formats, *(["without its zone"] * (form.offset == "drop"))])
    left_out = "" if parts else "hour, weekday and month never change"
    rules = form.model_dump(exclude_defaults=True) | mistakes | {"parts": parts}
    return _Guess(TimestampColumn, rules, kind, left_out, doubt or remark)


def _words(there: pd.Series) -> _Guess:
    counts = there.value_counts()
    if len(counts) < 2:
        return _Guess(TextColumn, {}, "text", "one value only" if len(counts) else "no value")
    if len(counts) <= min(MAX_CATEGORIES, len(there) / 2):
        rules: dict[str, Any] = {"categories": tuple(sorted(counts.index))}
        return _Guess(CategoryColumn, rules, f"category, {len(counts)} words")
    common = counts[counts >= MIN_CATEGORY_ROWS].index[: MAX_CATEGORIES - 1]
    rest = 1 - counts[common].sum() / len(there)
    if rest > 1 - MIN_COVERED:
        left_out = f"{len(counts)} different texts in {len(there)} rows"
        return _Guess(TextColumn, {}, "text", left_out)
    rules = {"categories": tuple(dict.fromkeys([*sorted(common), OTHER])), "other": OTHER}
    kind, remark = f"category, {len(common)} of {len(counts)} words", f"count as {OTHER!r}"
    remark = f"rarer words ({rest:.0%} of the rows) {remark}"
    return _Guess(CategoryColumn, rules, kind, remark=remark)


def group_spellings(values: Iterable[str]) -> dict[str, list[str]]:
    """Values that mean the same, ``0`` and ``0.0`` or ``Yes`` and ``yes``, by a common key."""
    groups: dict[str, list[str]] = {}
    for value in values:
        try:
            key = repr(float(value))
        except ValueError:
            key = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
        groups.setdefault(key, []).append(value)
    return groups
