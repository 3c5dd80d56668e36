from __future__ import annotations

import gzip
import io
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_lib.cases import encode_records, example_record, load_case
from lepton_lib.data import clean, encode, read_table, split
from lepton_lib.drafting import draft_case
from lepton_lib.errors import CaseError, DataError, LeptonError
from lepton_lib.evaluation import gate
from tests.conftest import small_table


@pytest.fixture
def draft(tmp_path):
    """Writes a table and drafts its case; ``draft(table, target)``."""

    def run(
        table: str | bytes, target: str = "label", *, name: str = "table.csv", folder: str = "mine"
    ):
        (tmp_path / name).write_bytes(table.encode() if isinstance(table, str) else table)
        draft_case(tmp_path / name, target=target, folder=tmp_path / "cases" / folder)
        return load_case(tmp_path / "cases" / folder)

    return run


def through(case):
    """Cleans, divides and encodes; returns the number of rows kept."""
    frame, report = clean(read_table(case), case)
    parts = split(frame, case, seed=0)
    for part in parts.values():
        inputs, labels = encode(part, case)
        assert inputs.shape == (len(labels), len(case.fields))
        assert np.isfinite(labels).all()
    assert encode_records(case, [example_record(case)]).shape[0] == 1
    return report.rows_kept


def table_of(header: str, row, n: int = 60) -> str:
    return "\n".join([header, *(row(i) for i in range(n)), ""])


def test_a_draft_of_a_plain_table_runs_at_once(draft):
    """The draft has the kinds, ranges and categories seen, and its rows can be encoded."""
    case = draft(small_table())
    assert case.name == "mine"
    assert case.task == "binary"
    x, colour = case.columns
    assert (x.kind, x.min, x.max) == ("number", 0, 15)
    assert (colour.kind, colour.categories) == ("category", ("blue", "green", "red"))
    assert not x.nullable
    assert through(case) == 40


def test_the_placeholders_say_that_they_are_to_be_agreed(draft):
    """No criterion of a draft passes for one that was agreed."""
    case = draft(small_table())
    assert {"auc", "latency_ms"} <= set(case.charter.criteria)
    assert all("to be agreed" in criterion.why for criterion in case.charter.criteria.values())


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (lambda i: i % 2, "binary", ("0", "1")),
        (lambda i: ("good", "bad")[i % 4 == 0], "binary", ("good", "bad")),
        (lambda i: i % 3, "multiclass", ("0", "1", "2")),
        (
            lambda i: ("low", "mid", "high", "top")[i % 4],
            "multiclass",
            ("high", "low", "mid", "top"),
        ),
        (lambda i: i * 1.5, "regression", ()),
        (lambda i: i, "regression", ()),
        (lambda i: i % 3 + 0.5, "regression", ()),
        (lambda i: (1, 2, 99)[min(i % 30, 2)], "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(draft, values, task, classes):
    """Few words or whole numbers are classes, rising or the rare one last; others a quantity."""
    case = draft(table_of("x,label", lambda i: f"{i % 7 + i / 10},{values(i)}"))
    assert case.task == task
    assert case.classes == classes
    through(case)


def test_columns_that_say_nothing_are_ignored(draft):
    """Identifiers, long texts, constants and empty columns are described, but are no inputs."""
    case = draft(
        table_of(
            ",Customer ID,note,country,empty,code,x,label",
            lambda i: f"{i},{(i * 37) % 101},note {i} here,ES,,A{i},{i / 3},{'ny'[i % 2]}",
        )
    )
    assert [column.name for column in case.inputs] == ["x"]
    assert [column.header for column in case.columns][:2] == ["", "Customer ID"]
    assert through(case) == 60


def test_marks_and_mistakes_are_recognised(draft):
    """Marks for missing values are listed, and single words among numbers become missing."""
    case = draft(
        table_of(
            "a,b,c,label",
            lambda i: (
                f"{'NA' if i % 9 == 0 else i / 2},{'Bad' if i == 5 else i},"
                f"{('None', 'x', '')[i % 3]},{i % 2}"
            ),
        )
    )
    a, b, c = case.columns
    assert a.missing == ("NA",)
    assert (b.on_invalid, b.nullable) == ("missing", True)
    assert c.categories == ("None", "x")
    assert c.nullable
    assert through(case) == 60


def test_marks_among_classes_are_rows_without_a_label(draft):
    """A missing-value mark among the classes is listed and its rows left out; the draft runs."""
    case = draft(table_of("x,label", lambda i: f"{i / 2},{'NA' if i % 10 == 0 else 'ab'[i % 2]}"))
    assert case.target.missing == ("NA",)
    assert through(case) == 54


def test_moments_in_order_make_a_split_by_time(draft):
    """A quantity beside rising moments is divided in time, never shuffled."""
    case = draft(
        table_of(
            "when,x,label", lambda i: f"2020-01-{1 + i // 24:02}T{i % 24:02}:00,{i % 5},{i * 1.5}"
        )
    )
    assert case.column("when").parts == ("hour", "weekday")  # of January alone no month is learnt
    assert (case.split.method, case.split.column) == ("time", "when")
    through(case)


def test_headers_become_names(draft):
    """A header stays what it is as far as formulas allow: keywords, digits first, twins don't."""
    case = draft(
        table_of(
            'Größe (cm),收入,class,2nd,"a b",a-b,target,"say ""hi"" \\\\",y',
            lambda i: ",".join([f"{i / 2}"] * 8 + [str(i % 2)]),
        ),
        target="y",
    )
    names = [column.name for column in case.columns]
    assert names == [
        "größe_cm",
        "收入",
        "_class",
        "_2nd",
        "a_b",
        "a_b_2",
        "target_2",
        "say_hi",
    ]
    assert [column.source for column in case.columns[:2]] == ["Größe (cm)", None]
    through(case)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk"])
def test_delimiter_and_encoding_are_sniffed(draft, delimiter, encoding):
    """Four delimiters and four encodings give the same case."""
    table = table_of("年龄,颜色,label", lambda i: f"{i / 4},{('红', '蓝')[i % 2]},{i % 2}").replace(
        ",", delimiter
    )
    case = draft(table.encode(encoding))
    assert [column.header for column in case.columns] == ["年龄", "颜色"]
    assert case.data.delimiter == delimiter
    assert set(case.columns[1].categories) == {"红", "蓝"}
    assert through(case) == 60


def test_a_packed_table_stays_packed(draft):
    """A .csv.gz is read and copied as it is."""
    case = draft(gzip.compress(small_table().encode()), name="table.csv.gz")
    assert case.data.file == "table.csv.gz"
    assert through(case) == 40


def test_commas_in_quotes_do_not_mislead(draft):
    """Quoted delimiters and line ends inside cells belong to the cell."""
    case = draft(
        table_of("x,c,label", lambda i: f'{i / 2},"{("a, b", "c; d")[i % 2]}\n",{i % 3 % 2}')
    )
    assert case.columns[1].categories == ("a, b", "c; d")
    assert through(case) == 60


def test_an_unclosed_quote_is_refused(draft):
    """In a large table it swallows all that follows: refused in a sentence, not a traceback."""
    with pytest.raises(DataError, match=r"table\.csv"):
        draft(
            table_of(
                "x,c,label", lambda i: f"{i},{chr(34) * (i == 3)}{'long ' * 10},{i % 2}", n=9_000
            )
        )


def test_odd_characters_reach_the_toml_as_they_are(draft):
    """Quotes, backslashes, brackets, control characters and alphabets survive as categories."""
    words = ['a"b', "a\\b", "#[x] = 1", "\x7f", "\x01", "é😀"]
    case = draft(
        table_of(
            "x,c,label",
            lambda i: f'{i / 2},"{words[i % 6].replace(chr(34), chr(34) * 2)}",{i % 5 % 2}',
        )
    )
    assert set(case.columns[1].categories) == set(words)
    assert through(case) == 60


def test_repeated_rows_are_to_be_dropped(draft):
    """A table with duplicates gets a draft that drops them."""
    case = draft(small_table() + small_table().partition("\n")[2])
    assert case.data.duplicates == "drop"
    assert through(case) == 40


def test_the_table_is_copied_byte_by_byte(draft, tmp_path):
    """The case holds the table as it was."""
    case = draft(b"\xef\xbb\xbf" + small_table().replace("\n", "\r\n").encode())
    assert case.path("table.csv").read_bytes() == (tmp_path / "table.csv").read_bytes()


DAMAGED = bytearray(gzip.compress(small_table(4000).encode()))
# the archive's middle, not its end
DAMAGED[200:260] = bytes(byte ^ 255 for byte in DAMAGED[200:260])
REFUSED = {
    "no such target": (
        small_table(),
        "labels",
        "one of ['x', 'colour', 'label']",
        "Did you mean 'label'?",
    ),
    "empty": (b"", "label", "a header and rows", "complete"),
    "header only": ("x,colour,label\n", "label", "rows", "complete"),
    "one column": ("label\n1\n2\n", "label", "columns to learn from", "delimiter"),
    "one class": (small_table().replace("yes", "no"), "label", "at least two", "other classes"),
    "no labels": (table_of("x,label", lambda i: f"{i},"), "label", "at least two", "other classes"),
    "three rows": (small_table(3), "label", "at least 10", "Collect more"),
    "a rare class": (
        small_table().replace("9.75,red,yes", "9.75,red,perhaps"),
        "label",
        "at least 10",
        "merge classes",
    ),
    "text as target": (
        table_of("x,label", lambda i: f"{i / 2},word {i}"),
        "label",
        "at most 20 classes",
        "merge",
    ),
    "nothing to learn from": (
        table_of("id,label", lambda i: f"{i},{i % 2}"),
        "label",
        "one column to learn",
        "Add",
    ),
    "header twice": (
        table_of("x,x,label", lambda i: f"{i},{i},{i % 2}"),
        "label",
        "every name once",
        "Rename",
    ),
    "ragged": (
        small_table().replace("0.5,green", "0.5"),
        "label",
        "3, one for each column",
        "Correct that line",
    ),
    "utf-16 without its mark": (small_table().encode("utf-16-le"), "label", "a text file", "UTF-8"),
    "binary": (bytes(range(256)) * 9, "label", "a text file", "UTF-8"),
    "damaged archive": (bytes(DAMAGED), "label", "a table", "Fetch"),
    "broken archive": (gzip.compress(small_table().encode())[:-9], "label", "a table", "Fetch"),
}


@pytest.mark.parametrize(("table", "target", "expected", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_case_is_refused_and_leaves_nothing(tmp_path, table, target, expected, remedy):
    """Each is one clear error, and no folder nor half a folder is left."""
    file = tmp_path / ("table.csv.gz" if expected == "a table" else "table.csv")
    file.write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(DataError) as caught:
        draft_case(file, target=target, folder=tmp_path / "mine")
    assert file.name in caught.value.where
    assert expected in str(caught.value.expected)
    assert remedy in caught.value.remedy
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_file_is_refused(tmp_path):
    """A path that leads nowhere is named."""
    with pytest.raises(DataError, match="no such file"):
        draft_case(tmp_path / "no.csv", target="y", folder=tmp_path / "mine")


def test_an_existing_folder_is_left_alone(tmp_path):
    """A folder that exists is neither overwritten nor added to."""
    (tmp_path / "table.csv").write_text(small_table())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "case.toml").write_text("precious")
    with pytest.raises(CaseError, match="a folder that exists"):
        draft_case(tmp_path / "table.csv", target="label", folder=tmp_path / "mine")
    assert [file.read_text() for file in (tmp_path / "mine").iterdir()] == ["precious"]


def test_a_name_that_no_case_can_have_is_refused(tmp_path):
    """The folder's name is the case's name, so it has to be one; a better one is offered."""
    (tmp_path / "table.csv").write_text(small_table())
    with pytest.raises(CaseError, match="Try 'my_data'"):
        draft_case(tmp_path / "table.csv", target="label", folder=tmp_path / "My data")


@pytest.mark.parametrize(
    ("name", "target", "task"),
    [
        ("credit", "Status", "binary"),
        ("credit_tiers", "Class", "binary"),
        ("heart", "diameter narrowing", None),
        ("traffic", "traffic_volume", "regression"),
    ],
)
def test_shipped_tables_are_drafted_or_refused_clearly(tmp_path, name, target, task):
    """Real tables are drafted so that they run; one with three header rows gets an error."""
    shipped = load_case(name)
    if task is None:
        with pytest.raises(LeptonError):
            draft_case(shipped.path(shipped.data.file), target=target, folder=tmp_path / name)
        return
    file = draft_case(shipped.path(shipped.data.file), target=target, folder=tmp_path / name)
    assert file.path == tmp_path / name / "case.toml"
    assert load_case(file.path.parent).task == task
    assert sorted(Path(tmp_path).iterdir()) == [tmp_path / name]


def test_random_tables_are_drafted_or_refused_and_never_crash(tmp_path):
    """Whatever stands in the cells, the draft runs, or one error says why not."""
    draw = np.random.default_rng(0)
    pieces = [
        "1",
        "2.5",
        "",
        "NA",
        "x",
        'say "hi"',
        "ä",
        "-",
        "2020-01-01",
        "1e400",
        "\x7f",
        "a\\b",
        "#",
        "[x]",
        " 7 ",
        "'",
    ]
    drafted = 0
    for number in range(40):
        some = draw.choice(pieces, size=(4, 3))
        rows = [[str(draw.choice(some[column])) for column in range(4)] for _ in range(80)]
        quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
        (tmp_path / "table.csv").write_text("\n".join(["a,b,c,d", *quoted]))
        try:
            file = draft_case(
                tmp_path / "table.csv", target="d", folder=tmp_path / f"case_{number}"
            )
        except LeptonError:
            continue
        drafted += 1
        through(load_case(file.path.parent))
    assert drafted >= 10


def test_rows_that_are_counted_are_no_input(draft):
    """Whole numbers that rise by one only number the rows; other unique numbers may matter."""
    case = draft(
        table_of(
            "place,reading,x,label", lambda i: f"{i + 5},{i * i + 3 * i},{i / 3},{'ny'[i % 2]}"
        )
    )
    assert [column.name for column in case.inputs] == ["reading", "x"]


def test_moments_with_gaps_are_no_order(draft):
    """A moment that is missing in some row can't divide the rows in time."""
    case = draft(
        table_of(
            "when,x,label",
            lambda i: f"{f'2020-01-01T{i % 24:02}:00' if i else ''},{i % 5},{i * 1.5}",
            n=24,
        )
    )
    assert case.column("when").nullable
    assert case.split.method == "stratified"


def test_a_quantity_with_gaps_leaves_those_rows_out(draft):
    """A mark among the values of a quantity is listed, and its rows have no label."""
    case = draft(table_of("x,y,label", lambda i: f"{i / 3},{i % 5},{'NA' if i == 7 else i * 1.5}"))
    assert (case.task, case.target.missing) == ("regression", ("NA",))
    assert through(case) == 59


def test_the_draft_is_written_as_a_person_would(draft):
    """Keys are bare where TOML lets them be, and quoted where it doesn't."""
    case = draft(table_of("x,label", lambda i: f"{i / 3},{('n o', 'y+')[i % 2]}"))
    text = (case.folder / "case.toml").read_text(encoding="utf-8")
    assert "\nat_least = " in text
    assert '\n"y+" = ' in text
    assert '[costs.matrix."n o"]' in text


def answers(i: int) -> str:
    """A label that no column of these tables tells."""
    return "yn"[(i * 7919 >> 3) % 2]


WRITTEN = {
    "decimal commas": (";", lambda i: f"{i},5", lambda i: i + 0.5),
    "decimal commas and points": (
        ";",
        lambda i: f"{i + 1}.000,25",
        lambda i: (i + 1) * 1000 + 0.25,
    ),
    "thousands": ("\t", lambda i: f"{i + 1},250", lambda i: (i + 1) * 1000 + 250),
    "lakhs": ("\t", lambda i: f"{i % 9 + 1},20,{i + 100}", lambda i: (i % 9 + 1) * 1e5 + 20100 + i),
    "narrow spaces": (",", lambda i: f"{i + 1}\u202f250", lambda i: (i + 1) * 1000 + 250),
    "apostrophes": (",", lambda i: f"{i + 1}'250.5", lambda i: (i + 1) * 1000 + 250.5),
    "dollars": (",", lambda i: f"${i}.25", lambda i: i + 0.25),
    "euros": (";", lambda i: f"{i},25 €", lambda i: i + 0.25),
    "currency codes": (",", lambda i: f"USD {i}.25", lambda i: i + 0.25),
    "percentages": (",", lambda i: f"{i}.25%", lambda i: i + 0.25),
    "units": (",", lambda i: f"{i}.25 kg", lambda i: i + 0.25),
    "a typographic minus": (",", lambda i: f"\u2212{i}.25", lambda i: -i - 0.25),
    "accounting": (
        ",",
        lambda i: f"(${i}.25)" if i % 2 else f"${i}.25",
        lambda i: (i + 0.25) * (-1) ** i,
    ),
    "exponents": (",", lambda i: f"{i}.5e3", lambda i: i * 1000 + 500),
}


@pytest.mark.parametrize(("delimiter", "cell", "value"), WRITTEN.values(), ids=WRITTEN)
def test_numbers_are_read_as_people_write_them(draft, delimiter, cell, value):
    """The case declares how they are written, and each cell becomes the number that it means."""
    case = draft(table_of(f"x{delimiter}label", lambda i: f"{cell(i)}{delimiter}{answers(i)}"))
    frame, _ = clean(read_table(case), case)
    assert frame["x"].tolist() == [value(i) for i in range(60)]
    column = case.column("x")
    assert column.parse(column.to_text(frame["x"])).tolist() == frame["x"].tolist()


MOMENTS = {
    "Z": "%Y-%m-%dT%H:%M:%SZ",
    "offset": "%Y-%m-%d %H:%M:%S+02:00",
    "ISO": "%Y-%m-%d %H:%M:%S",
    "day first": "%d.%m.%Y %H:%M",
    "month first": "%m/%d/%Y %H:%M",
    "twelve hours": "%m/%d/%Y %I:%M %p",
    "words": "%d %B %Y, %H:%M",
    "characters": "%Y年%m月%d日 %H:%M",
}


@pytest.mark.parametrize("form", MOMENTS.values(), ids=MOMENTS)
def test_moments_are_read_as_people_write_them(draft, form):
    """The clock of each cell is kept, whatever zone is written behind, and it splits the table."""
    moments = [datetime(2023, 1, 1, i % 24) + timedelta(days=11 * i) for i in range(60)]
    rows = [f'"{moment.strftime(form)}",{answers(i)}' for i, moment in enumerate(moments)]
    case = draft("\n".join(["when,label", *rows, ""]))
    frame, _ = clean(read_table(case), case)
    assert frame["when"].tolist() == moments
    assert (case.split.method, case.split.column) == ("time", "when")
    column = case.column("when")
    assert column.parse(column.to_text(frame["when"])).tolist() == moments


@pytest.mark.parametrize("mark", ["#N/A", "n/a", "NaT", "N/A", "null", "-", "–", "?", "#DIV/0!"])
def test_marks_for_missing_values_are_found_in_any_spelling(draft, mark):
    """They are listed among numbers, and no column is lost for them."""
    case = draft(table_of("x,label", lambda i: f"{mark if i % 9 == 0 else i / 3},{answers(i)}"))
    assert case.column("x").missing == (mark,)
    assert clean(read_table(case), case)[0]["x"].isna().sum() == 7


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["0", "0.0", "1", "1.0"], [{"0", "0.0"}, {"1", "1.0"}]),
        (["Yes", "yes", "no"], [{"Yes", "yes"}, {"no"}]),
    ],
)
def test_spellings_of_a_class_are_one(draft, words, values):
    """Numbers and words that mean the same class are its values."""
    case = draft(table_of("x,label", lambda i: f"{i / 3},{words[i % len(words)]}"))
    assert case.task == "binary"
    assert [set(entry.values) for entry in case.target.classes] == values
    through(case)


FRAMES = {
    "title": "Sales report,,\n,,\n{}",
    "short title": "Sales report\n\n{}",
    "separator": "sep=,\r\n{}",
    "blank rows": "{},,\n,,\n\n",
}


@pytest.mark.parametrize("around", FRAMES.values(), ids=FRAMES)
def test_what_stands_around_a_table_is_no_row(draft, around):
    """Titles and declarations above the header, and blank rows below, are passed over."""
    case = draft(
        around.format(table_of("x,c,label", lambda i: f"{i / 3},{'ab'[i % 2]},{answers(i)}"))
    )
    assert [column.name for column in case.columns] == ["x", "c"]
    assert through(case) == 60


def test_empty_columns_and_trailing_commas_are_no_columns(draft):
    """With or without a header for them, empty cells at a row's end don't count."""
    case = draft(table_of("x,label,,", lambda i: f"{i / 3},{answers(i)},,,"))
    assert [column.name for column in case.columns] == ["x"]
    assert through(case) == 60


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        ("Größe", "cp1252"),
        ("año niño", "cp1252"),
        ("나이 성별", "euc-kr"),
        ("年龄", "gbk"),
        ("年齢 東京", "cp932"),
        ("возраст", "cp1251"),
        ("Łódź Kraków", "cp1250"),
    ],
)
def test_encodings_are_weighed(tmp_path, words, encoding):
    """Few letters suffice, what they were read as is shown, and --encoding overrules it."""
    table = table_of(f"x,{words},label", lambda i: f"{i / 3},{'ab'[i % 2]},{answers(i)}")
    (tmp_path / "t.csv").write_bytes(table.encode(encoding))
    drafted = draft_case(tmp_path / "t.csv", target="label", folder=tmp_path / "a")
    assert drafted.columns["column"].tolist() == ["x", words, "label"]
    assert words.split()[0] in drafted.notes[0]
    options = {"target": "label", "encoding": "cp437", "folder": tmp_path / "b"}
    assert draft_case(tmp_path / "t.csv", **options).columns["column"][1] != words


@pytest.mark.parametrize("digits", [15, 16, 19])
def test_long_identifiers_are_judged_on_their_text(draft, digits):
    """Where a float would make neighbours equal they are all different all the same."""
    case = draft(
        table_of("order_id,x,label", lambda i: f"{10 ** (digits - 1) + 7 * i},{i / 3},{answers(i)}")
    )
    assert [column.name for column in case.inputs] == ["x"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("label", [answers, lambda i: f"{i * 37 % 101 + 0.5}"])
def test_rows_with_a_clock_are_split_by_time(draft, order, label):
    """Newest first, half-hourly and with an hour that comes twice: the test part comes last."""
    times = [datetime(2023, 10, 28) + timedelta(minutes=30 * i) for i in range(120)]
    times = [moment - timedelta(hours=moment >= datetime(2023, 10, 29, 3)) for moment in times]
    rows = [f"{times[order * i]},{i % 7},{label(i)}" for i in range(120)]
    case = draft("\n".join(["when,x,label", *rows, ""]))
    frame, _ = clean(read_table(case), case)
    parts = split(frame, case, seed=0)
    assert parts["train"]["when"].max() <= parts["test"]["when"].min()


def test_daily_data_have_no_hour(draft):
    """A part of the moment that never changes is none that a model could learn from."""
    case = draft(
        table_of("when,label", lambda i: f"{datetime(2023, 1, 1) + timedelta(days=i)},{answers(i)}")
    )
    assert case.column("when").parts == ("weekday", "month")


def test_many_words_are_used_and_the_rare_ones_counted_together(draft):
    """The commonest words are categories, any other word counts as one, in tables and requests."""
    case = draft(
        table_of("town,label", lambda i: f"t{i % 25 if i % 10 else i},{answers(i)}", n=1000)
    )
    town = case.column("town")
    assert (len(town.categories), town.other, town.role) == (26, "other", "input")
    coded = encode_records(case, [{"town": "t3"}, {"town": "nowhere"}])[:, 0]
    assert coded.tolist() == [town.categories.index("t3"), town.categories.index("other")]
    frame, _ = clean(read_table(case), case)
    assert frame["town"].value_counts()["other"] == 100 - sum(
        i % 10 == 0 and i < 25 for i in range(1000)
    )
    assert through(case) == 1000


def test_ranges_have_room(draft):
    """A client may post a little more than was seen, but no negative age."""
    case = draft(table_of("age,flag,label", lambda i: f"{i * 7 % 69 + 4},{i % 2},{answers(i)}"))
    age, flag = case.column("age"), case.column("flag")
    assert age.min == 0
    assert age.max > 90
    assert (flag.min, flag.max) == (0, 1)
    encode_records(case, [{"age": 73.45, "flag": 1}])


def drafted(tmp_path, table, **options):
    """The draft of a table with the target ``label``."""
    (tmp_path / "t.csv").write_text(table, encoding="utf-8")
    return draft_case(tmp_path / "t.csv", target="label", folder=tmp_path / "c", **options)


def test_no_column_is_left_out_without_a_reason(tmp_path):
    """The draft's table has a line a column, with samples, and says why one isn't used."""
    table = table_of("id,note,same,x,label", lambda i: f"{i},n{i},ES,{i / 3},{answers(i)}")
    draft = drafted(tmp_path, table)
    lines = draft.columns.set_index("column")
    assert lines["remark"].to_dict() == {
        "id": "numbers the rows",
        "note": "60 different texts in 60 rows",
        "same": "one value only",
        "x": "",
        "label": "",
    }
    assert lines.loc["note", "samples"] == "n0 · n1 · n2"
    assert "note    left out: text" in draft.to_text()


def test_a_copy_of_the_target_is_left_out_and_a_near_copy_noted(tmp_path):
    """Either would praise a worthless model; the draft says which is which."""
    table = table_of(
        "copy,near,x,label",
        lambda i: (
            f"{'ab'[answers(i) == 'y']},{(answers(i) == 'y') + i % 9 / 20},{i / 3},{answers(i)}"
        ),
        n=300,
    )
    draft = drafted(tmp_path, table)
    case = load_case(draft.path.parent)
    assert [column.name for column in case.inputs] == ["near", "x"]
    assert draft.columns.set_index("column").loc["copy", "remark"] == "a copy of the target"
    assert any("'near' alone" in note for note in draft.notes)


def test_wild_targets_are_noted_and_do_not_make_the_bound(tmp_path):
    """Three values of ten milliards leave the drafted bound where the other rows put it."""
    table = table_of(
        "x,label", lambda i: f"{i % 7},{1e10 if i in (5, 50, 500) else 10.5 + i % 11}", 900
    )
    draft = drafted(tmp_path, table)
    case = load_case(draft.path.parent)
    assert any(note.startswith("3 target values lie far out") for note in draft.notes)
    assert case.charter.criteria["mean_absolute_error"].at_most == pytest.approx(2.727, abs=0.01)
    assert 'drop = "target < ' in draft.path.read_text(encoding="utf-8")


def test_a_rare_class_costs_what_it_is_rare(tmp_path):
    """At costs of 1 to 1 never deciding on it would look good."""
    table = table_of("x,label", lambda i: f"{i % 97},{'yes' if i % 200 == 0 else 'no'}", 4000)
    draft = drafted(tmp_path, table)
    case = load_case(draft.path.parent)
    assert case.costs.matrix["yes"]["no"] == 199
    assert case.charter.criteria["cost"].at_most == pytest.approx(0.995)
    assert any("about 4 rows in the test part" in note for note in draft.notes)


def test_whole_numbers_as_a_target_are_noted_and_can_be_classes(tmp_path):
    """25 of them are taken for a quantity, which is said; --task overrules it."""
    table = table_of("x,label", lambda i: f"{i % 7},{i % 25}", n=500)
    draft = drafted(tmp_path, table)
    assert any("25 whole numbers are taken for a quantity" in note for note in draft.notes)
    options = {"target": "label", "task": "multiclass", "folder": tmp_path / "d"}
    assert len(load_case(draft_case(tmp_path / "t.csv", **options).path.parent).classes) == 25
    with pytest.raises(DataError, match="got 25 classes"):
        draft_case(tmp_path / "t.csv", **(options | {"task": "binary", "folder": tmp_path / "e"}))


def test_sensitive_columns_are_known_by_their_names(draft):
    """In several languages; their groups will be compared."""
    case = draft(
        table_of(
            "Age,sex,客户性别,average,label",
            lambda i: f"{i * 7 % 61},{'mf'[i % 2]},{'男女'[i % 2]},{i / 3},{answers(i)}",
        )
    )
    assert [column.name for column in case.sensitive] == ["age", "sex", "客户性别"]


def test_a_drafted_charter_judges_nothing(tmp_path):
    """However good the values are, the gate is not judged until it is agreed."""
    draft = drafted(tmp_path, table_of("x,label", lambda i: f"{i / 3},{answers(i)}"))
    case = load_case(draft.path.parent)
    verdict = gate(case, {"auc": (0.99, 0.98, 1.0), "cost": 0.0})
    assert verdict.passed is None
    assert str(verdict).startswith("Gate not judged")
    assert [entry["passed"] for entry in verdict.to_dict()["criteria"]] == [None, None]
    text = draft.path.read_text(encoding="utf-8")
    draft.path.write_text(text.replace("agreed = false\n", ""), encoding="utf-8")
    assert gate(load_case(draft.path.parent), {"auc": 0.99}).passed


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet", ".json", ".jsonl", ".tsv", ".zip"])
def test_tables_come_in_other_formats(tmp_path, suffix):
    """Each becomes the case's CSV, with the same columns and rows."""
    frame = pd.read_csv(
        io.StringIO(table_of("x,colour,label", lambda i: f"{i / 4},{'ab'[i % 2]},{answers(i)}"))
    )
    file = tmp_path / f"t{suffix}"
    match suffix:
        case ".xlsx":
            frame.to_excel(file, index=False)
        case ".parquet":
            frame.to_parquet(file)
        case ".json" | ".jsonl":
            frame.to_json(file, orient="records", lines=suffix == ".jsonl")
        case ".tsv":
            frame.to_csv(file, index=False, sep="\t")
        case ".zip":
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("inner.csv", frame.to_csv(index=False))
                archive.writestr("__MACOSX/._inner.csv", "?")
    case = load_case(draft_case(file, target="label", folder=tmp_path / "c").path.parent)
    table, _ = clean(read_table(case), case)
    assert table["x"].tolist() == frame["x"].tolist()
    assert table["colour"].tolist() == frame["colour"].tolist()


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet", ".json", ".jsonl", ".zip"])
def test_a_broken_file_is_refused_with_its_reason(tmp_path, suffix):
    """What isn't what its name says is one error, and nothing is left."""
    file = tmp_path / f"t{suffix}"
    file.write_text("x,label\n1,2\n")
    with pytest.raises(DataError, match=rf"t\{suffix}: got a file that is no {suffix[1:]}"):
        draft_case(file, target="label", folder=tmp_path / "c")
    assert list(tmp_path.iterdir()) == [file]


def test_a_quantity_to_predict_is_read_as_it_is_written(draft):
    """Currency, thousands and decimal commas are rules of the target, too."""
    case = draft(table_of("x;label", lambda i: f"{i % 7};{i + 1}.000,5 €"))
    assert case.task == "regression"
    assert clean(read_table(case), case)[0]["target"].tolist() == [
        1000 * i + 0.5 for i in range(1, 61)
    ]


def test_rows_that_chance_makes_equal_are_kept(draft):
    """People of one sex and town are different people; a table pasted twice is not."""
    case = draft(table_of("sex,town,label", lambda i: f"{'mf'[i % 2]},{'abc'[i % 3]},{answers(i)}"))
    assert case.data.duplicates == "keep"
    assert through(case) == 60


def test_the_commands_show_what_was_drafted_and_check_it(lepton, tmp_path, monkeypatch):
    """new-case ends with the table and a command that runs as it stands; cases checks the data."""
    monkeypatch.chdir(tmp_path)
    table = table_of("id;x;label", lambda i: f"{i};{i % 7},5;{answers(i)}")
    Path("t.csv").write_text(table, encoding="utf-8")
    code, out, _ = lepton("new-case", "t.csv", "--target", "label", "--out", "mine")
    assert code == 0
    assert "id      left out: number" in out
    assert "number, decimal comma" in out
    assert "lepton run loop --case ./mine" in out
    code, out, _ = lepton("cases", "./mine")
    assert (code, "rows kept" in out) == (0, True)
    Path("mine", "t.csv").write_text(table.replace("3,5", "3.5", 1), encoding="utf-8")
    assert lepton("cases", "./mine")[0] == 2
