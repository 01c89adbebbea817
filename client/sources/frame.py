"""One frame of a DICOM file, read on demand.

Tested in ``tests/client/sources/files/test_folder.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.pixels.refusal import UnreadableDicom
from client.reading.dicom import read_frame
from client.sources.record import Unreadable
from tasks.task import Picture


@dataclass(frozen=True)
class Frame:
    """Reads one frame of a file.

    Whoever decodes in processes of its own (``client/reading/decoding.py``) takes ``path`` and ``index`` from here.
    """

    path: Path
    index: int

    def __call__(self) -> Picture:
        try:
            return read_frame(self.path, self.index)
        except UnreadableDicom as error:
            raise Unreadable(str(error.reason), str(error)) from error
