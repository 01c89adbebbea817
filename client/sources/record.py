"""What every source gives: records of labelled images that can be read one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tasks.task import Picture


class Unreadable(Exception):
    """An image cannot be read; ``reason`` is one word from a fixed list, fit for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Record:
    """One labelled image.

    Attributes:
        patient_id: the patient's number as its issuer gave it. Stays in the hospital, is not stored by us.
        image_id: what tells this image from all others of its source.
        label: 0 or 1.
        signature: changes whenever the image's bytes may have changed.
        read: decodes the image. Raises ``Unreadable``.
    """

    patient_id: str
    image_id: str
    label: int
    signature: str
    read: Callable[[], Picture]


@dataclass(frozen=True)
class Listing:
    """All records of a source, and what was left out of it, counted by reason."""

    records: list[Record]
    left_out: Counter[str] = field(default_factory=Counter)

