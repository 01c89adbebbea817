"""The kill switch: a plain file. While it is there nothing is trained and nothing leaves.

``consilium-site stop`` makes the file, and so does ``touch``: no program has to work for a hospital to stop. It is
asked before training and again immediately before a reply is sent, so a stop counts even in the middle of a round.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from client.errors import Stopped


def stopped(stop_file: Path) -> bool:
    """Whether the hospital has stopped. Also when nobody can tell, because the folder is gone or not to be entered."""
    try:
        stop_file.lstat()
    except FileNotFoundError:
        return not stop_file.parent.is_dir()
    except OSError:
        return True
    return True


def require_running(stop_file: Path) -> None:
    """Pass only while the hospital has not stopped.

    Raises:
        Stopped: naming the file and how to go on.
    """
    if stopped(stop_file):
        raise Stopped(
            f"the hospital has stopped: {stop_file} exists, or its folder cannot be read. Nothing is trained and "
            "nothing leaves. To go on: consilium-site resume"
        )


def stop(stop_file: Path, reason: str) -> None:
    """Stop from now on; a stop that is there already keeps its own reason."""
    stop_file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), stop_file.open("x", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {reason}\n")


def resume(stop_file: Path) -> bool:
    """Go on. Returns whether the hospital had stopped."""
    try:
        stop_file.unlink()
    except FileNotFoundError:
        return False
    return True
