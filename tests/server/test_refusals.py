"""What ``consilium`` says where it cannot go on."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from conf.load import ConfigError
from server import refusals
from server.errors import StudyBusy


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigError("task=x: no such task"), "Invalid configuration:\ntask=x: no such task\n"),
        (StudyBusy("[study] is running"), "StudyBusy: [study] is running\n"),
        (
            NotADirectoryError(20, "Not a directory", "README.md/study.json"),
            "File error: README.md/study.json: a part of the path is a file and no folder; name another path.\n",
        ),
    ],
    ids=["configuration", "study", "file"],
)
def test_each_kind_has_one_form_and_markup_in_it_is_text(error: Exception, told: str) -> None:
    written = StringIO()
    refusals.tell(error, Console(file=written))
    assert written.getvalue() == told
