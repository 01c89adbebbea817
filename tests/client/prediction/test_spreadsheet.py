"""No cell of a table is one that a spreadsheet would run; numbers stay numbers, and names stay readable."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.prediction import outcome
from client.prediction.local_image import LeftOut, LocalImage
from client.prediction.model import CheckedModel
from client.prediction.predict import Predictions, ScoredImage, ScoredPatient
from client.prediction.spreadsheet import harmless, table_of
from tests.client.prediction.handed_over import model

BEGINS = "=+-@"
TEXT = st.text(st.sampled_from("=+-@＝＋－＠−\t\r\n ,;|\"'ab1\u200b\ufeff\u202e\u2066\x00\x1b\udc80") | st.characters())
FORMULAS = [
    *("=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "  =1", '"=1', "＝1+1", "＋1", "－1", "＠x", "\ufeff=1"),
    *('=HYPERLINK("http://x","y")', '=cmd|"/C calc"!A0', "a;=1", "a,=1", "a\n=1", 'a;"=1', "\x00=1", "\u202e=1"),
]


def runs(text: str) -> bool:
    """Whether a spreadsheet would run a cell of the text: read independently of how it was written.

    One whose country parts cells at commas, semicolons or tabs; quotes, white space and what is not seen are skipped.
    """
    for separator in ("", ",", ";", "\t", "|", "\n", "\r"):
        for cell in text.split(separator) if separator else [text]:
            seen = cell.lstrip('" ').lstrip()
            while seen and (unicodedata.category(seen[0]) in ("Cf", "Cc", "Zs") or seen[0] == '"'):
                seen = seen[1:]
            if unicodedata.normalize("NFKC", seen[:1]) in (*BEGINS, "\u2212") or cell[:1] in ("\t", "\r", "\n"):
                return True
    return False


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@given(text=TEXT)
@example(text="=1")
@example(text="a, -b")
def test_no_text_runs_or_commands_and_once_is_enough(text: str) -> None:
    made = harmless(text)
    assert not runs(made)
    assert not [c for c in made if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [c for c in made if unicodedata.bidirectional(c)[-1:] in "OE" and unicodedata.category(c) == "Cf"]
    assert harmless(made) == made
    made.encode()


@given(rows=st.lists(st.lists(TEXT, min_size=2, max_size=3), max_size=4))
def test_a_table_keeps_its_cells_apart(rows: list[list[str]]) -> None:
    assert cells(table_of(rows)) == [[harmless(cell) for cell in row] for row in rows]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_text(text: str) -> None:
    assert runs(text)
    assert not runs(harmless(text))


@pytest.mark.parametrize(
    "text", ["1.2.840.10008", "P-17", "Åse Ødegård", "a-b=c", "/data/a.dcm", "山田　太郎", "علی‌رضا", ""]
)
def test_usual_text_stays(text: str) -> None:
    assert harmless(text) == text


def test_numbers_stay_numbers() -> None:
    assert cells(table_of([[-1, 2.5, -0.25, None, True, Path("=x")]])) == [
        ["-1", "2.5", "-0.25", "", "True", "'=x"],
    ]


def only_the_start(text: str) -> str:
    """What 0.1.0 did, and with two columns only."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def never(text: str) -> str:
    return text


@pytest.mark.parametrize("wrong", [only_the_start, never])
def test_wrong_versions_are_seen(wrong: Callable[[str], str]) -> None:
    assert [text for text in FORMULAS if runs(wrong(text))]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> CheckedModel:
    return model(tmp_path_factory.mktemp("model"))


@given(text=TEXT)
def test_no_column_of_the_scores_runs(opened: CheckedModel, text: str) -> None:
    image = LocalImage(text, text, text, text, text, text, Path(text), 0, 1, warned=(text,), without=(text,))
    patient = ScoredPatient(text, (ScoredImage(image, 0.5, b""),))
    found = Predictions([patient], [LeftOut(text, Path(text), text)])
    rows = cells(table_of(outcome._table(opened, found)))
    assert {len(row) for row in rows[1:]} == {14}
    assert not [cell for row in rows for cell in row if runs(cell)]
