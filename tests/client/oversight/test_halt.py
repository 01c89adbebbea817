"""The kill switch works without any program, and doubts count as a stop."""

import os
from pathlib import Path

import pytest

from client.errors import Stopped
from client.oversight.halt import require_running, resume, stop, stopped
from tasks.protocol.wire import ErrorCode


def test_touching_the_file_is_enough(tmp_path: Path) -> None:
    switch = tmp_path / "STOP"
    assert not stopped(switch)
    require_running(switch)
    switch.touch()
    assert stopped(switch)
    with pytest.raises(Stopped, match="consilium-site resume") as caught:
        require_running(switch)
    assert caught.value.code == ErrorCode.STOPPED


def test_stop_and_resume(tmp_path: Path) -> None:
    switch = tmp_path / "folder" / "STOP"
    stop(switch, "network incident 12")
    stop(switch, "a later reason")
    assert switch.read_text().endswith("network incident 12\n")
    assert stopped(switch)
    assert resume(switch) is True
    assert not stopped(switch)
    assert resume(switch) is False


def test_a_dangling_link_and_a_folder_of_that_name_stop_too(tmp_path: Path) -> None:
    (tmp_path / "STOP").symlink_to(tmp_path / "nowhere")
    assert stopped(tmp_path / "STOP")
    (tmp_path / "HALT").mkdir()
    assert stopped(tmp_path / "HALT")


def test_a_folder_that_is_gone_stops(tmp_path: Path) -> None:
    """An unmounted volume hides the switch; nobody can tell, so nothing leaves."""
    assert stopped(tmp_path / "unmounted" / "STOP")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_stops(tmp_path: Path) -> None:
    tmp_path.chmod(0o000)
    try:
        assert stopped(tmp_path / "STOP")
    finally:
        tmp_path.chmod(0o700)
