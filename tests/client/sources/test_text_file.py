"""Only text that is certain is read: a guessed encoding could turn one patient's number into another's."""

import codecs
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.errors import SiteMisconfigured
from client.sources.text_file import text_of

TEXT = "PatientID,label\nØst-3,良性\n王-001,恶性\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
)
def test_marked_text_and_utf8_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)
    assert text_of(tmp_path / "t") == TEXT


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a\nb,良性\n".encode("gbk"), 2),
        ("a\nb,良性\n".encode("gb18030"), 2),
        ("a\nb\nØst\n".encode("latin-1"), 3),
        ("a\nb\nソ\n".encode("shift-jis"), 3),
        ("P1\nP2\n".encode("utf-16-le"), 1),
        ("P1\nP2\n".encode("utf-16-be"), 1),
        (codecs.BOM_UTF16_LE + "a\nb\n".encode("utf-16-le") + b"\x00\xd8\x00", 3),
    ],
)
def test_other_encodings_are_refused_with_their_line_and_the_remedy(tmp_path: Path, content: bytes, line: int) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(SiteMisconfigured, match=rf"line {line}: .*save it as UTF-8"):
        text_of(tmp_path / "t")


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(SiteMisconfigured, match="cannot read"):
        text_of(tmp_path / "absent")
    with pytest.raises(SiteMisconfigured, match="cannot read"):
        text_of(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)
    with suppress(SiteMisconfigured):
        assert "\0" not in text_of(tmp_path / "t")
