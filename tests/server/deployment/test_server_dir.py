"""The server's folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.deployment import pki
from server.deployment.server_dir import ServerDir, ServerSettings, make, read
from server.errors import ServerMisconfigured


def test_a_folder_of_somebody_else_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ServerMisconfigured, match="must belong to user"):
        make(tmp_path / "home", ServerSettings(host="localhost"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
def test_root_is_refused_in_another_user_s_folder(tmp_path: Path) -> None:
    made = make(tmp_path / "home", ServerSettings(host="localhost"))
    os.chown(made.path, 65534, 65534)
    with pytest.raises(ServerMisconfigured, match=r"belongs to another user: run this as \S+ \(runuser -u"):
        read(made.path)


def certified(server_dir: ServerDir) -> None:
    pki.create_authority(server_dir)
    pki.issue_server(server_dir)


def test_an_init_that_was_killed_at_any_file_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dies_at in range(1, 5):
        made = make(tmp_path / str(dies_at), ServerSettings(host="localhost"))
        writes = 0

        def counted(write: Callable[..., None], at: int = dies_at) -> Callable[..., None]:
            def writing(*arguments: object, **more: object) -> None:
                nonlocal writes
                writes += 1
                if writes == at:
                    raise KeyboardInterrupt
                write(*arguments, **more)

            return writing

        with monkeypatch.context() as patched:
            patched.setattr(pki, "write_secret", counted(pki.write_secret))
            patched.setattr(pki, "write_whole", counted(pki.write_whole))
            with pytest.raises(KeyboardInterrupt):
                certified(made)
        certified(made)
        assert pki.revocations(made) == {}
        assert pki.days_left(made) > 1
