"""Whatever stands in a table, it is read as its header says or refused in a sentence with a line."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.errors import SiteMisconfigured
from client.sources import text_file
from client.sources.labels.rows import read_table
from client.sources.labels.table import read_labels
from tasks.answers import Grade, Measure
from tasks.codes import Code
from tasks.task import Finding

CLASSES = ("benign", "malignant")
NODULE = Finding("nodule", Code("SCT", "1", "x"))


def written(folder: Path, content: bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PatientID,label\nA,1,extra\nB,0\n", "line 2: 3 cells, the header has 2; it begins with 'A', '1'"),
        (b"PatientID,label\nA,1\nB\n", "line 3: 1 cells, the header has 2"),
        (b"PatientID,label\nA,1\n\n\nB\n", "line 5: "),
        (b'PatientID,label\n"A\nB",1\nC\n', "line 4: "),
        (b"PatientID,label\nA,1\nB\0,0\n", "line 3: contains NUL"),
        (b"Patient\0ID,label\nA,1\n", "line 1: contains NUL"),
        (b"PatientID,label\nA,1\nM\xfcller,0\n", "line 3: its text is not UTF-8"),
        (b'PatientID,label\nA,1\n"B,0\nC,1\n', "quotation mark"),
        (b"PatientID,label\nA," + b"1" * 200_000 + b"\n", "line 2: field larger than"),
        (b"PatientID,label,label\nA,1,0\n", "several columns label"),
        (b"PatientID,label\nA," + b"x" * 1000 + b"\n", "label='x*'\\.\\.\\."),
        (b"PatientID,diagnosis\nA,0\n", "needs a column 'label'"),
        (b"PatientID\nA\n", "needs a column 'label'"),
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"," * 1_000_000 + b"\n", "has 1000001 columns"),
        (b"\x1b[2J,label\nA,0\n", r"it has '\\x1b\[2J', label"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_what_is_wrong_is_told_with_its_line_and_a_remedy(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(SiteMisconfigured, match=told) as refusal:
        read_labels(written(tmp_path, content), CLASSES)
    assert str(tmp_path) in str(refusal.value)
    assert len(str(refusal.value)) < 4000
    assert str(refusal.value).replace("\n", "").isprintable()


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SiteMisconfigured, match="cannot read"):
        read_labels(tmp_path, CLASSES)
    monkeypatch.setattr(text_file, "MOST_BYTES", 2**20)
    with pytest.raises(SiteMisconfigured, match="larger than 1 MiB"):
        read_labels(Path("/dev/zero"), CLASSES)


def test_what_spreadsheets_add_does_no_harm(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfPatientID;label;\r\nA;1;;;\r\n;;\r\n"B";"benign";\r\n\r\n'
    table = read_table(written(tmp_path, content))
    assert (table.columns, table.lines) == (("PatientID", "label", ""), [2, 4])
    assert read_labels(tmp_path / "labels.csv", CLASSES).values == {"A": 1, "B": 0}


def test_many_wrong_rows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(SiteMisconfigured, match="and 40 more"):
        read_labels(written(tmp_path, b"PatientID,label\n" + b"A\n" * 50), CLASSES)


CELL = st.text(st.sampled_from('01ABab.\u00e9"\n\r;,\t\0\ud800 =') | st.characters(), max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A labels file, some of whose rows, cells and bytes are not as they should be."""
    header = draw(st.permutations(["PatientID", "label", "nodule", *draw(st.lists(CELL, max_size=2))]))
    proper = st.tuples(*(st.sampled_from(["", "0", "1", "A", "B", "benign"]) for _ in header)).map(list)
    lines = draw(st.lists(proper | st.lists(CELL, max_size=len(header) + 2), max_size=6))
    stream = io.StringIO()
    with suppress(csv.Error):
        csv.writer(stream, delimiter=draw(st.sampled_from(",;\t"))).writerows([header, *lines])
    content = stream.getvalue().encode(draw(st.sampled_from(["utf-8", "latin-1", "utf-16"])), "replace")
    at = draw(st.integers(0, max(1, len(content))))
    return content[:at] + draw(st.binary(max_size=2)) + content[at:] if draw(st.booleans()) else content[: at * 4]


@given(content=tables())
@example(content=b"PatientID,label,nodule\nA,1\n")
@example(content=b"PatientID,label,nodule\nA,1,0,1\n")
def test_any_file_is_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp(), content)
    with suppress(SiteMisconfigured):
        labels = read_labels(path, CLASSES, [NODULE])
        assert set(labels.values.values()) <= {0, 1}
        assert not [name for name in labels.values if not name or "\0" in name]


def test_a_reader_that_pads_and_cuts_rows_is_seen(tmp_path: Path) -> None:
    """``csv.DictReader``, as it was used: a row too short loses a finding, one too long its last cells, in silence."""
    path = written(tmp_path, b"PatientID,nodule,label\nA,1\nB,0,1,0\n")
    with path.open(newline="") as file:
        lenient = list(csv.DictReader(file))
    assert [row["label"] for row in lenient] == [None, "1"]
    with pytest.raises(SiteMisconfigured, match=r"(?s)line 2: 2 cells.*line 3: 4 cells"):
        read_table(path)


SIZE = Measure(
    Code("SCT", "410668003", "Length"), Code("UCUM", "mm", "millimeter"), 0, 50, event_above=20, units=(("cm", 10.0),)
)
GRADED = Grade(("none", "mild", "severe"), "mild", tuple(Code("99CONSILIUM", f"G{n}", f"grade {n}") for n in range(3)))


def test_measured_values_are_converted_and_missing_ones_are_missing(tmp_path: Path) -> None:
    rows = b"PatientID,label,label_unit,grade\nA,12,,mild\nB,1.2 cm,,2\nC,1.2,cm,\nD,,,1\nE,12 mm,mm,0\n"
    labels = read_labels(written(tmp_path, rows), CLASSES, [Finding("grade", NODULE.code, GRADED)], SIZE)
    assert labels.values == dict.fromkeys("ABCE", 12.0)
    assert labels.findings == {"A": (1.0,), "B": (2.0,), "D": (1.0,), "E": (0.0,)}
    assert labels.left_out["ROW_WITHOUT_LABEL"] == 1
    assert labels.warnings == []


def test_one_value_in_two_units_is_a_repetition_and_another_one_a_contradiction(tmp_path: Path) -> None:
    rows = b"PatientID,label\nA,12 mm\nA,1.2 cm\nB,12 mm\nB,13 mm\n"
    labels = read_labels(written(tmp_path, rows), CLASSES, (), SIZE)
    assert labels.values == {"A": 12.0}
    assert (labels.left_out["DUPLICATE_LABEL_ROW"], labels.left_out["CONTRADICTING_LABEL_ROWS"]) == (1, 1)


@pytest.mark.parametrize("text", ["51", "5.1 cm", "-1", "12 inch", "about 12", "1.2 cm/mm"])
def test_a_value_beyond_the_range_or_of_an_unknown_unit_is_named_and_never_clipped(tmp_path: Path, text: str) -> None:
    rows = f"PatientID,label\nA,12\nB,{text}\n".encode()
    with pytest.raises(SiteMisconfigured, match="a number in mm, 0 to 50, or with its unit, one of mm, cm") as told:
        read_labels(written(tmp_path, rows), CLASSES, (), SIZE)
    assert f"line 3: PatientID='B', label='{text}'" in str(told.value)


def test_a_grade_of_a_finding_that_is_none_is_named_with_what_there_is(tmp_path: Path) -> None:
    rows = b"PatientID,label,grade,nodule\nA,12,3,1\nB,13,mild,2\n"
    findings = [Finding("grade", NODULE.code, GRADED), NODULE]
    with pytest.raises(SiteMisconfigured, match="each of grade must be 0 to 2 or one of none, mild, severe") as told:
        read_labels(written(tmp_path, rows), CLASSES, findings, SIZE)
    assert "line 2: grade='3'" in str(told.value)
    assert "line 3: nodule='2'" in str(told.value)
