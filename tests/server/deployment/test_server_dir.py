"""The server's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.deployment.server_dir import ServerSettings, make
from server.errors import ServerMisconfigured


def test_a_folder_of_somebody_else_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ServerMisconfigured, match="must belong to user"):
        make(tmp_path / "home", ServerSettings(host="localhost"))
