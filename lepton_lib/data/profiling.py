"""What a column of text seems to be: numbers, moments, words or nothing to learn from, and why."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lepton_lib.cases import CategoryColumn, Column, NumberColumn, TextColumn, TimestampColumn
from lepton_lib.cases.formats import MINUS, MomentFormat, NumberFormat
from lepton_lib.cases.moments import PARTS, count_part

MAX_CATEGORIES = 30  # of more distinct words the commonest are categories, the rest one of them
MIN_CATEGORY_ROWS = 5  # of a word that is a category of its own among that many
MOST = 0.9  # a column with such a share of numbers (or moments) is one with mistakes in it
SAMPLE = 2_000  # distinct cells from which a format is judged
OTHER = "other"
_MARKS = ["na", "n/a", "#n/a", "#na", "nan", "nat", "null", "<na>", "?", "#value!", "#ref!"]
_MARKS += ["#div/0!", "#num!", "#name?", "#null!", "n.a.", "(null)", "1.#qnan"]
_NUMBER_MARKS = ("none", "-", "--", ".", "\u2013", "\u2014")  # but may be a category's name
_ID_HEADER = re.compile(
    r"(^|[\s_.-])(?i:id|uid|uuid|guid|index|key|no|nr|row|rownames)$|[a-z]I[Dd]$|^(?i:unnamed.*)?$"
)
_SENSITIVE = re.compile(
    r"\b(age|sex|gender|race|ethnic\w*|religion|national\w*|citizen\w*|marital\w*|disab\w*|pregnan\w*"
    r"|alter|geschlecht|herkunft|familienstand|sexe|âge|genre|edad|sexo|género|età|sesso)\b"
    r"|年龄|年齡|性别|性別|民族|国籍|婚姻|年齢|나이|성별"
)
_CURRENCIES = "USD EUR GBP CHF JPY CNY RMB INR KRW RUB PLN CZK SEK NOK DKK kr zł Rs Rs. R$ US$ Fr."
_NUMBER = re.compile(
    rf"\(?\s*[-+{MINUS}]?\s*([^\d\s.,()+'-]*[^\d\s,()+'-]?)\s*[-+{MINUS}]?\s*"
    r"((?:\d[\d.,'\u2019\s]*|[.,])\d+|\d[.,]?)(?:[eE][-+]?\d+)?\s*([^\d\s()]*[²³]?)\s*\)?"
)
_DATES = ["%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d-%m-%Y"]
_DATES += ["%m-%d-%Y", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y"]
_DATES += ["%B %d, %Y", "%d-%b-%Y", "%d-%b-%y", "%Y年%m月%d日"]
_CLOCKS = ["", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M"]


class Profile(NamedTuple):
    """A column as drafted, what it was taken for, and what its reader should know."""

    column: Column
    kind: str
    remark: str = ""


def is_missing(values: pd.Series, *, numbers: bool = False) -> pd.Series:
    """Which cells are empty or hold a mark for a missing value: bool ``(n,)``."""
    marks = ["", *_MARKS, *(_NUMBER_MARKS if numbers else ())]
    return values.str.lower().isin(marks)


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
    before = Counter(match[1] for match in matches if match[1])
    after = Counter(match[3] for match in matches if match[3])
    signs = [sign for sign in before if _is_currency(sign)]
    signs += [
        sign
        for sign, count in after.items()
        if _is_currency(sign) or sign in "%‰°" or (count > MOST * len(cells) and len(sign) < 6)
    ]
    accounting = bool(cells.str.startswith("(").any())
    plain = not cells.str.contains("[.,' \u00a0\u2009\u202f\u2019]").any()
    here, there = (",", ".") if comma else (".", ",")
    marks = [(here, ""), (here, there), (there, ""), (there, here)]
    marks += product((here, there), " '")
    rules: dict[str, Any] = {"signs": tuple(sorted(set(signs))), "accounting": accounting}
    formats = [
        NumberFormat.model_validate(rules | {"decimal": decimal, "thousands": group})
        for decimal, group in ([(".", "")] if plain else marks)
    ]
    counts = [int(form.read_numbers(cells).notna().sum()) for form in formats]
    best = int(np.argmax(counts))
    return formats[best] if counts[best] >= MOST * len(cells) else None


def _is_currency(sign: str) -> bool:
    return sign in _CURRENCIES.split() or any(unicodedata.category(c) == "Sc" for c in sign)


def find_moment_format(cells: pd.Series) -> tuple[MomentFormat | None, str]:
    """The format in which most of these distinct cells are moments, and a doubt about it."""
    formats: list[str] = []
    doubt = ""
    rest = cells
    while len(rest) and len(formats) < 3:
        possible = [f for f in map("".join, product(_DATES, _CLOCKS)) if _matches(rest.iloc[0], f)]
        reads = {f: pd.to_datetime(rest, format=f, errors="coerce") for f in possible}
        if not reads:
            break
        most = max(int(read.notna().sum()) for read in reads.values())
        equal = [f for f, read in reads.items() if read.notna().sum() == most]
        if len(equal) > 1:
            doubt = f"could also be {equal[1]}: check day and month"
            equal.sort(key=lambda f: -abs(float(np.sign(reads[f].diff().dt.days).mean())))
            doubt = f"read as {equal[0]}, but {equal[1]} fits too: check day and month"
        formats.append(equal[0])
        rest = rest[reads[equal[0]].isna()]
    for known, offset in product(((), tuple(formats)), ("error", "drop")):
        form = MomentFormat.model_validate({"formats": known, "offset": offset})
        if form.read_moments(cells).notna().sum() >= MOST * len(cells):
            return form, doubt if form.formats else ""
    return None, ""


def _matches(cell: str, form: str) -> bool:
    try:
        return bool(datetime.strptime(cell, form))
    except ValueError:
        return False


def profile_column(values: pd.Series, base: dict[str, Any], *, comma: bool) -> Profile:
    """Describe one column.

    Args:
        values: Its cells ``(n,)``, stripped.
        base: What is known: ``name``, ``source``, ``meaning``.
        comma: Whether the table's numbers have decimal commas.
    """
    there = values[~is_missing(values)]
    strict = there[~is_missing(there, numbers=True)]
    if strict.empty and there.nunique() < 2:
        return _text(values, there, base, "no value" if there.empty else "one value only")
    cells = _sample(strict)
    digits = cells.str.fullmatch(r"[-+]?\d{16,}")  # float64 holds fifteen digits exactly
    form = None if digits.any() else find_number_format(cells, comma=comma)
    if form:
        return _number(values, strict, base, form)
    moment, doubt = find_moment_format(cells) if len(cells) else (None, "")
    if moment:
        return _moment(values, strict, base, moment, doubt)
    return _words(values, there, base)


def _gaps(values: pd.Series, there: pd.Series, parsed: pd.Series | None = None) -> dict[str, Any]:
    """The keys that say which cells are missing, and which break the column's rule."""
    marks = values.drop(there.index).drop_duplicates()
    broken = parsed is not None and bool(parsed.isna().any())
    return {
        "missing": tuple(sorted(mark for mark in marks if mark)),
        "nullable": len(there) < len(values) or broken,
        **({"on_invalid": "missing"} if broken else {}),
    }


def _remark(parsed: pd.Series, there: pd.Series) -> str:
    wrong = there[parsed.isna()].drop_duplicates()
    return f"{parsed.isna().sum()} cells become missing: {list(wrong[:3])}" if len(wrong) else ""


def _number(
    values: pd.Series, there: pd.Series, base: dict[str, Any], form: NumberFormat
) -> Profile:
    rules = form.model_dump(exclude_defaults=True)
    free = NumberColumn(**base, **rules)
    numbers = free.parse(there)
    known = numbers.dropna()
    low, high = widen(known)
    unit = form.signs[0] if len(form.signs) == 1 else ""
    rules |= _gaps(values, there, numbers) | {"min": low, "max": high, "unit": unit}
    kind = "number" + "".join(f", {key} {value}" for key, value in _spelt(form))
    header = base.get("source", base["name"])
    why = ""
    if known.nunique() < 2:
        why = "one value only"
    elif known.is_unique and len(known) > 2 and (known % 1 == 0).all():
        if (known.diff().iloc[1:] == 1).all():
            why = "numbers the rows"
        elif _ID_HEADER.search(header):
            why = "identifiers: all different"
    if why:
        return Profile(NumberColumn(**base, **rules, role="ignored"), kind, why)
    cuts = tuple(sorted({float(f"{cut:.3g}") for cut in known.quantile([1 / 3, 2 / 3])}))
    return Profile(
        NumberColumn(**base, **rules, **_sensitive(base, cuts=cuts)), kind, _remark(numbers, there)
    )


def _spelt(form: NumberFormat) -> Iterator[tuple[str, str]]:
    if form.decimal == ",":
        yield "decimal", "comma"
    if form.thousands:
        yield "thousands", repr(form.thousands)
    if form.signs:
        yield "with", " ".join(form.signs)
    if form.accounting:
        yield "(…)", "negative"


def widen(numbers: pd.Series) -> tuple[float, float]:
    """The range seen with half its width as room on each side, rounded; zero stays a bound."""
    low, high = float(numbers.min()), float(numbers.max())
    room = (high - low) / 2
    if low >= 0 and high <= 1 and (numbers % 1 == 0).all():
        return 0, 1
    step = 10.0 ** np.floor(np.log10(room)) if room > 0 else 1.0
    bounds = np.floor((low - room) / step) * step, np.ceil((high + room) / step) * step
    least, most = (float(f"{bound:.12g}") for bound in bounds)
    limit = float(np.finfo(np.float32).max)
    least, most = max(least, -limit), min(most, limit)
    return (0.0 if low >= 0 > least else least), (0.0 if high <= 0 < most else most)


def _moment(
    values: pd.Series, there: pd.Series, base: dict[str, Any], form: MomentFormat, doubt: str
) -> Profile:
    rules = form.model_dump(exclude_defaults=True)
    moments = form.read_moments(there)
    parts = tuple(part for part in PARTS if count_part(moments.dropna(), part).nunique() > 1)
    rules |= _gaps(values, there, moments) | {"parts": parts}
    kind = " ".join(["moment", *form.formats, *(["without its zone"] * (form.offset == "drop"))])
    if not parts:
        return Profile(
            TimestampColumn(**base, **rules, role="ignored"),
            kind,
            "hour, weekday and month never change",
        )
    return Profile(TimestampColumn(**base, **rules), kind, doubt or _remark(moments, there))


def _words(values: pd.Series, there: pd.Series, base: dict[str, Any]) -> Profile:
    counts = there.value_counts()
    gaps = _gaps(values, there)
    if len(counts) < 2:
        return _text(values, there, base, "one value only")
    if len(counts) <= min(MAX_CATEGORIES, len(there) / 2):
        words: dict[str, Any] = {"categories": tuple(sorted(counts.index))}
        return Profile(
            CategoryColumn(**base, **gaps, **words, **_sensitive(base)),
            f"category, {len(counts)} words",
        )
    common = counts[counts >= MIN_CATEGORY_ROWS].index[: MAX_CATEGORIES - 1]
    if counts[common].sum() < len(there) / 5:
        return _text(values, there, base, f"{len(counts)} different texts in {len(there)} rows")
    words = {"categories": tuple(dict.fromkeys([*sorted(common), OTHER])), "other": OTHER}
    kind = f"category, {len(common)} of {len(counts)} words"
    rest = 1 - counts[common].sum() / len(there)
    return Profile(
        CategoryColumn(**base, **gaps, **words, **_sensitive(base)),
        kind,
        f"rarer words ({rest:.0%} of the rows) count as {OTHER!r}",
    )


def _text(values: pd.Series, there: pd.Series, base: dict[str, Any], why: str) -> Profile:
    return Profile(TextColumn(**base, **_gaps(values, there), role="ignored"), "text", why)


def _sensitive(base: dict[str, Any], cuts: tuple[float, ...] | None = None) -> dict[str, Any]:
    header = re.sub(r"[\W_]+", " ", str(base.get("source", base["name"]))).lower()
    if cuts == () or not _SENSITIVE.search(header):
        return {}
    return {"sensitive": True} | ({"cuts": cuts} if cuts else {})


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
