"""The kill switch: a plain file. While it exists nothing is trained and nothing leaves.

``consilium-site stop`` creates the file, and so does ``touch``: a hospital can stop even if no program works. It is
checked before training and again immediately before a reply is sent, so a stop takes effect in the middle of a round.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from client.errors import Stopped


def stopped(stop_file: Path) -> bool:
    """Whether the hospital is stopped. Also true if its folder is missing or cannot be read."""
    try:
        stop_file.lstat()
    except FileNotFoundError:
        return not stop_file.parent.is_dir()
    except OSError:
        return True
    return True


def require_running(stop_file: Path) -> None:
    """Pass only while the hospital is not stopped.

    Raises:
        Stopped: naming the file and how to go on.
    """
    if stopped(stop_file):
        raise Stopped(
            f"the hospital is stopped: {stop_file} exists, or its folder cannot be read. Nothing is trained and "
            "nothing leaves. To resume: consilium-site resume"
        )


def stop(stop_file: Path, reason: str) -> None:
    """Stop from now on; an existing stop keeps its reason."""
    stop_file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), stop_file.open("x", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {reason}\n")


def resume(stop_file: Path) -> bool:
    """Resume. Returns whether the hospital was stopped."""
    try:
        stop_file.unlink()
    except FileNotFoundError:
        return False
    return True
