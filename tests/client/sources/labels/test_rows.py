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
