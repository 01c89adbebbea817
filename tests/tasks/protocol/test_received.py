"""A file that somebody sent and that is not what it should be is refused in a sentence, whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.protocol import received
from tasks.protocol.received import Unusable

WRONG = {
    "missing": (None, "there is no such file"),
    "empty": (b" \n", "it is empty: it was not copied whole; ask for it again"),
    "binary": (b"\xff\xd8\xff\xe0", "it is not text in UTF-8, so it is another file"),
    "large": (b"x" * 101, "a note has at most 100 bytes, so it is another file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_one_is_refused_in_words(tmp_path: Path, name: str) -> None:
    content, told = WRONG[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Unusable, match=told) as caught:
        received.text_in(tmp_path / name, "a note", 100)
    assert "Errno" not in str(caught.value)


@pytest.mark.parametrize("name", [".", "x" * 5000, "nul\0l"])
def test_a_name_of_no_file_is_refused_in_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unusable, match="cannot be read as a note: "):
        received.text_in(tmp_path / name, "a note", 100)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf{}")
    assert received.text_in(tmp_path / "marked", "a note", 100) == "{}"
