"""One frame of a DICOM file, or several together, read on demand.

Tested in ``tests/client/sources/files/test_folder.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.pixels.refusal import UnreadableDicom
from client.reading.decoding import together
from client.reading.dicom import read_frame
from client.sources.record import Unreadable
from tasks.task import Picture


@dataclass(frozen=True)
class Frame:
    """Reads one frame of a file, with others beside it where the task looks at several together.

    Whoever decodes in processes of its own (``client/reading/decoding.py``) takes ``path``, ``index`` and ``beside``
    from here.
    """

    path: Path
    index: int
    beside: tuple[int, ...] = ()

    def __call__(self) -> Picture:
        try:
            return together(lambda index: read_frame(self.path, index), self.index, self.beside)
        except UnreadableDicom as error:
            raise Unreadable(str(error.reason), str(error)) from error
