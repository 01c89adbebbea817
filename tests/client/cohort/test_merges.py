"""Merges as hospitals' systems announce them; none is missed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cohort.merges import Merge, read_merges
from client.errors import SiteMisconfigured

A40 = "\r".join(
    [
        "MSH|^~\\&|HIS|ALDER|PACS|ALDER|20261130||ADT^A40^ADT_A39|1|P|2.5.1",
        "EVN|A40|20261130",
        "PID|1||NEW-1^^^ALDER^MR~99^^^SSN^SS||Doe^Jane",
        "MRG|OLD-1^^^ALDER^MR",
        "PID|2||NEW-2^^^ALDER^MR",
        "MRG|88^^^SSN^SS~OLD-2^^^ALDER^PI",
    ]
)
A34 = "MSH|^~\\&|HIS|A|P|A|20100101||ADT^A34|2|P|2.3\rPID|1|NEW-3\rMRG|OLD\\T\\3\r"
OTHER = "MSH|^~\\&|HIS|A|P|A|20100101||ADT^A08|3|P|2.5\rPID|1||X^^^A^MR\r"


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n"])
def test_hl7_messages_that_merge_are_read_and_others_are_not(tmp_path: Path, ending: str) -> None:
    text = "\x0b" + "\r".join([OTHER, A40, A34]) + "\x1c\r"
    (tmp_path / "m.hl7").write_text(text.replace("\r", ending), "utf-8", newline="")
    merges = read_merges(tmp_path / "m.hl7")
    assert merges == [Merge("OLD-1", "NEW-1"), Merge("OLD-2", "NEW-2"), Merge("OLD&3", "NEW-3")]


def test_a_folder_of_both_kinds_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "2.hl7").write_text(A34, "utf-8")
    (tmp_path / "1.csv").write_text("from;to\nA; B\n\n", "utf-8")
    (tmp_path / "3.csv").write_text("", "utf-8")
    assert read_merges(tmp_path) == [Merge("A", "B"), Merge("OLD&3", "NEW-3")]
    assert read_merges(None) == []


def test_everything_that_is_not_understood_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("patient,number\nA,B\n", "utf-8")
    (tmp_path / "b.csv").write_text("from,to\nA,B\nC,\nD\n", "utf-8")
    (tmp_path / "c.hl7").write_text(A40.split("\rMRG")[0], "utf-8")
    (tmp_path / "d.hl7").write_text("MSH|^~\\&|H|A|P|A|2|\r|ADT^A40|1\r" + A34.replace("OLD", ""), "utf-8")
    with pytest.raises(SiteMisconfigured) as caught:
        read_merges(tmp_path)
    for place in ("a.csv line 1", "b.csv line 3", "b.csv line 4", "c.hl7 line 1"):
        assert place in str(caught.value)
    with pytest.raises(SiteMisconfigured, match="are missing"):
        read_merges(tmp_path / "absent")


@given(st.text(max_size=200))
def test_no_text_is_a_crash(text: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        path.write_text("MSH|^~\\&|" + text, "utf-8", errors="replace")
        with suppress(SiteMisconfigured):
            read_merges(path)
