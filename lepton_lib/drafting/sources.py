"""Files as people have them, turned into one text table, and how that table is written.

Knows encodings, delimiters, spreadsheets and archives; doesn't know what a column means.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import io
import itertools
import json
import re
import shutil
import statistics
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lepton_lib.errors import DataError

_SAMPLE = 200_000  # characters from which delimiter and header are judged


@functools.cache
def conventions() -> dict[str, Any]:
    """How people write tables, see conventions.toml."""
    file = Path(__file__).with_name("conventions.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def copy_table(file: Path, folder: Path) -> Path:
    """Put the file's table into ``folder``: text as it is, other formats as CSV in UTF-8.

    Args:
        file: Text (also packed: ``.csv.gz``), ``.xlsx``, ``.parquet``, ``.json``, ``.jsonl``, or a
            ``.zip`` of one such file.
        folder: Where.

    Raises:
        DataError: No such file, or one that is broken or holds no table.
    """
    if not file.is_file():
        raise DataError(str(file), "no such file", "a table", "Check the path.")
    suffix = file.suffix.lower()
    try:
        if suffix == ".zip":
            return _unzip(file, folder)
        if suffix not in _READERS:
            return Path(shutil.copyfile(file, folder / file.name))
        frame, header = _READERS[suffix](file), suffix != ".xlsx"
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        got = f"a file that is no {suffix[1:]} ({' '.join(str(error).split())[:120]})"
        raise DataError(file.name, got, "a table", "Fetch it again.") from error
    place = folder / f"{file.stem}.csv"
    frame.to_csv(place, index=False, header=header, lineterminator="\n")
    return place


def _unzip(file: Path, folder: Path) -> Path:
    with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as aside:
        names = [n for n in archive.namelist() if not re.search(r"(^|/)(__MACOSX/|\.)|/$", n)]
        if len(names) != 1:
            raise DataError(file.name, f"{len(names)} files", "one table", "Unpack it first.")
        return copy_table(Path(archive.extract(names[0], aside)), folder)


def _read_json(file: Path) -> pd.DataFrame:
    """A list of objects, or a line for each; what they nest becomes columns ``outer.inner``."""
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() != ".json":
        text = f"[{','.join(filter(str.strip, text.splitlines()))}]"
    return pd.json_normalize(json.loads(text))


_READERS: dict[str, Any] = {
    ".xlsx": functools.partial(pd.read_excel, header=None, dtype=object),
    ".parquet": pd.read_parquet,
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), _read_json),
}


def sniff(path: Path, encoding: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """How a text table is written, as [data] says it, and what is uncertain about that.

    Raises:
        DataError: The file is broken or isn't text.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        got = f"a broken file ({error})"
        raise DataError(path.name, got, "a table", "Fetch it again.") from error
    encoding, notes = (encoding, []) if encoding else _guess_encoding(path.name, data)
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except (UnicodeError, LookupError) as error:
        remedy = "Give another --encoding, or save it as UTF-8."
        raise DataError(path.name, str(error), f"text in {encoding}", remedy) from error
    declared = re.match(r"sep=(.)\r?\n", text)
    above, delimiters, start = (1, declared[1], declared.end()) if declared else (0, ",;\t|", 0)
    layouts = _layouts(text[start:][:_SAMPLE], delimiters)
    titles, _, delimiter = max(layouts, default=(0, 1, delimiters[0]))
    line = above - titles + 1
    if line > 1:
        notes.append(f"the header stands on line {line}; what is above is left out")
    return {"encoding": encoding, "delimiter": delimiter, "header_line": line}, notes


def _layouts(text: str, delimiters: str) -> Iterator[tuple[int, int, str]]:
    """For each delimiter that divides the lines: minus the title lines, the columns, itself."""
    for delimiter in delimiters:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows: list[tuple[int, list[str]]] = []
        with contextlib.suppress(csv.Error):  # a quote that nothing closes: reading names the line
            rows.extend((reader.line_num, row) for row in itertools.islice(reader, 200))
        widths = [len(row) for _, row in rows if any(row)]
        if not widths or (width := statistics.mode(widths)) < 2:
            continue
        above = 0
        for line, row in rows:
            filled = sum(map(bool, map(str.strip, row)))
            if filled > max(1, width // 3) or (filled and not row[0].strip()):
                yield -above, width, delimiter
                break
            above = line


def _guess_encoding(name: str, data: bytes) -> tuple[str, list[str]]:
    """The encoding in which the bytes make most sense, and words that show what they become."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", []
    if b"\0" not in data:
        with contextlib.suppress(UnicodeDecodeError):
            data.decode()
            return "utf-8", []
        if fits := sorted(_fits(data)):
            encoding, sample = fits[0][3:]
            return encoding, [f"read as {encoding}: {sample!r}; if that is wrong, --encoding helps"]
    remedy = "Save it as CSV in UTF-8 (in a spreadsheet: 'CSV UTF-8'), or give --encoding."
    raise DataError(name, "no text", "a text file", remedy)


def _fits(data: bytes) -> Iterator[tuple[float, float, int, str, str]]:
    """Encodings that the bytes allow: their disorder, strangeness, rank, name and a sample."""
    from charset_normalizer import from_bytes

    # only words with other letters than ASCII's tell encodings apart
    found = set(re.findall(rb"[^\x00-\x1f ,;|]*[\x80-\xff]+[^\x00-\x1f ,;|]*", data))
    words, encodings = b" ".join(sorted(found)[:3000]), conventions()["encodings"]
    matches = from_bytes(words, cp_isolation=list(encodings), threshold=1.0)
    for match, name in ((m, n) for m in matches for n in m.could_be_from_charset):
        with contextlib.suppress(UnicodeDecodeError, KeyError):
            common, text, _ = encodings[name], words.decode(name), data.decode(name)
            letters = [letter for letter in text if ord(letter) > 127]
            strange = 1 - sum(letter in common for letter in letters) / len(letters)
            sample = " ".join(text.split()[:4])[:60]
            yield round(match.chaos, 1), strange, list(encodings).index(name), name, sample
