from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from lepton_lib.cases import encode_records, example_record, load_case
from lepton_lib.data import clean, draft_case, encode, read_table, split
from lepton_lib.errors import CaseError, DataError, LeptonError
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
    assert (x.kind, x.min, x.max) == ("number", 0, 9.75)
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
    assert case.column("when").parts == ("hour", "weekday", "month")
    assert (case.split.method, case.split.column) == ("time", "when")
    through(case)


def test_headers_become_names(draft):
    """Any header gets a name for formulas: other alphabets, keywords, digits first, twins."""
    case = draft(
        table_of(
            'Größe (cm),收入,class,2nd,"a b",a-b,target,"say ""hi"" \\\\",y',
            lambda i: ",".join([f"{i / 2}"] * 8 + [str(i % 2)]),
        ),
        target="y",
    )
    names = [column.name for column in case.columns]
    assert names == [
        "grosse_cm",
        "column_2",
        "_class",
        "_2nd",
        "a_b",
        "a_b_2",
        "target_2",
        "say_hi",
    ]
    assert case.columns[1].header == "收入"
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
        "Mend that line",
    ),
    "latin-1": (
        small_table().replace("red", "grün").encode("latin-1"),
        "label",
        "a text file",
        "UTF-8",
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
    assert file == tmp_path / name / "case.toml"
    assert load_case(file.parent).task == task
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
        through(load_case(file.parent))
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


def test_a_quantity_with_gaps_is_refused(draft):
    """A word among the values of a quantity is reported with its line, like every wrong value."""
    with pytest.raises(
        DataError, match="line 9, column 'target': got 'NA', expected a finite number"
    ):
        draft(table_of("x,y,label", lambda i: f"{i / 3},{i % 5},{'NA' if i == 7 else i * 1.5}"))


def test_the_draft_is_written_as_a_person_would(draft):
    """Keys are bare where TOML lets them be, and quoted where it doesn't."""
    case = draft(table_of("x,label", lambda i: f"{i / 3},{('n o', 'y+')[i % 2]}"))
    text = (case.folder / "case.toml").read_text(encoding="utf-8")
    assert "\nat_least = " in text
    assert '\n"y+" = ' in text
    assert '[costs.matrix."n o"]' in text
