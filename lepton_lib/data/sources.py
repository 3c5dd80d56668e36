"""Files as people have them, turned into one text table, and how that table is written.

Knows encodings, delimiters, spreadsheets and archives; doesn't know what a column means.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
import statistics
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lepton_lib.errors import DataError

# Encodings that people's files come in besides UTF-8, the likeliest first, and what is common in
# the languages written so. Short texts fit many encodings: these letters decide.
_WEST = "äöüßÄÖÜéèêëàâáçñíîïóôúûãõåæøœÉ°€£–—’“”"
_CYRILLIC = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфОЕАИНТСРВЛКМДПУЯ"
_HAN = "年月日性男女大小中上下人口地名入"
ENCODINGS = {
    "cp1252": _WEST,
    "gb18030": _HAN + "的一是不了在有这来国岁收别红蓝绿黄城市区称价格数量颜龄学历职业",
    "cp949": "이다는가하지기리나자사시인어대서부수일고라도스성별울산남여급료등",
    "cp932": _HAN
    + "のはをにがでとたしるアイウエオカキクコサシスセタトナニノハマメラリルレロン別齢東京",
    "big5": _HAN + "的一是不了在有這來國歲收別紅藍綠黃城市區稱價格數量顏齡學歷職業臺台北",
    "cp1251": _CYRILLIC,
    "cp1250": "ąćęłńśźżčďěňřšťůýžáéíóőűŁŚŻČŘŠŽ",
    "cp1254": "şğıİçöüŞ",
    "cp1253": "αειοντσςρηκλπυμάέήίόύώγδθχφβξζ",
    "koi8_r": _CYRILLIC,
    "mac_roman": _WEST,
    "cp850": _WEST,
}
_MAGIC = {
    b"PK": "a workbook or archive (is it .xlsx or .zip?)",
    b"\xd0\xcf\x11\xe0": "an old workbook (.xls)",
    b"PAR1": "a table in Parquet (is it .parquet?)",
}
_SAMPLE = 200_000  # characters from which delimiter and header are judged


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
    with zipfile.ZipFile(file) as archive:
        names = [n for n in archive.namelist() if not re.search(r"(^|/)(__MACOSX/|\.)|/$", n)]
        if len(names) != 1:
            raise DataError(file.name, f"{len(names)} files", "one table", "Unpack it first.")
        place = folder / "unzipped" / Path(names[0]).name
        place.parent.mkdir(exist_ok=True)
        with archive.open(names[0]) as packed, open(place, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    table = copy_table(place, folder)
    shutil.rmtree(place.parent)
    return table


def _read_json(file: Path) -> pd.DataFrame:
    """A list of objects; or an object that holds one list, or columns by name."""
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else content
    return pd.json_normalize(content) if isinstance(content, list) else pd.DataFrame(content)


def _read_json_lines(file: Path) -> pd.DataFrame:
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    return pd.json_normalize([json.loads(line) for line in lines if line.strip()])


def _read_excel(file: Path) -> pd.DataFrame:
    return pd.read_excel(file, header=None, dtype=object)


_READERS: dict[str, Any] = {
    ".xlsx": _read_excel,
    ".parquet": pd.read_parquet,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}


def sniff(path: Path, encoding: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """How a text table is written, as [data] says it, and what is uncertain about that.

    Raises:
        DataError: The file is broken or isn't text.
    """
    notes: list[str] = []
    data = _content(path)
    if encoding is None:
        encoding, notes = _sniff_encoding(path, data)
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except (UnicodeError, LookupError) as error:
        remedy = "Give another --encoding, or save it as UTF-8."
        raise DataError(path.name, str(error), f"text in {encoding}", remedy) from error
    result: dict[str, Any] = {"encoding": encoding}
    declared = re.match(r"sep=(.)\r?\n", text)
    above = 1 if declared else 0
    if declared:
        text = text[declared.end() :]
    best = max(_layouts(text[:_SAMPLE], declared[1] if declared else ",;\t|"), default=(0, 1, ","))
    titles, _, delimiter = best
    if (header_line := above - titles + 1) > 1:
        result["header_line"] = header_line
        notes.append(f"the header stands on line {header_line}; what is above is left out")
    return result | {"delimiter": declared[1] if declared else delimiter}, notes


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        got = f"a broken file ({error})"
        raise DataError(path.name, got, "a table", "Fetch it again.") from error


def _layouts(text: str, delimiters: str) -> Iterator[tuple[int, int, str]]:
    """For each delimiter that divides the lines: minus the title lines, the columns, itself."""
    for delimiter in delimiters:
        rows: list[tuple[int, list[str]]] = []
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            for row in reader:
                rows.append((reader.line_num, row))
                if len(rows) == 200:
                    break
        except csv.Error:  # a quote that nothing closes: reading names the line
            pass
        widths = [len(row) for _, row in rows[: 199 if len(rows) == 200 else None] if any(row)]
        if not widths or (width := statistics.mode(widths)) < 2:
            continue
        previous = 0
        for line, row in rows:
            filled = sum(map(bool, map(str.strip, row)))
            if filled > max(1, width // 3) or (filled and not row[0].strip()):
                yield -previous, width, delimiter
                break
            previous = line


def _sniff_encoding(path: Path, data: bytes) -> tuple[str, list[str]]:
    """The encoding in which the bytes make most sense, and what else they could be."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", []
    if b"\0" not in data:
        try:
            data.decode()
            return "utf-8", []
        except UnicodeDecodeError:
            pass
        # Only what isn't ASCII tells encodings apart.
        words = b" ".join(
            sorted(set(re.findall(rb"[^\x00-\x1f ,;|]*[\x80-\xff]+[^\x00-\x1f ,;|]*", data)))[:3000]
        )
        fits = sorted(_fits(words, data))
        if fits:
            *_, best, sample = fits[0]
            others = {text: name for *_, name, text in reversed(fits[1:]) if text != sample}
            note = f"read as {best}: {sample!r}"
            if others:
                rest = ", ".join(
                    f"{name}: {text!r}" for text, name in list(others.items())[::-1][:2]
                )
                note += f" (--encoding would read {rest})"
            return best, [note]
    got = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "no text")
    remedy = "Save it as CSV in UTF-8 (in a spreadsheet: 'CSV UTF-8'), or give --encoding."
    raise DataError(path.name, got, "a text file", remedy)


def _fits(words: bytes, data: bytes) -> Iterator[tuple[float, float, int, str, str]]:
    """Encodings that the bytes allow: their disorder, strangeness, rank, name and a sample."""
    from charset_normalizer import from_bytes

    found = from_bytes(words, cp_isolation=list(ENCODINGS), threshold=1.0)
    for match in found:
        for name in match.could_be_from_charset:
            if name not in ENCODINGS:
                continue
            try:
                data.decode(name)
            except UnicodeDecodeError:
                continue
            text = words.decode(name)
            letters = [letter for letter in text if ord(letter) > 127]
            strange = 1 - sum(letter in ENCODINGS[name] for letter in letters) / len(letters)
            sample = " ".join(text.split()[:4])[:60]
            yield round(match.chaos, 1), strange, list(ENCODINGS).index(name), name, sample
