"""Unique names of a prediction's objects: the same model on the same images makes the same names.

So a second run finds in the archive what the first one stored there. Pixels are part of a name: an image that was
replaced under its SOPInstanceUID gets another report. The hospital's key is part of it as well, so that a name tells
nobody without the key of which images it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from client.sources.pacs.integrity import NotWhole, examine
from client.sources.pacs.own import own_uid


class ObjectNames:
    """Names under one hospital's key and of one model."""

    def __init__(self, key: bytes, model: str) -> None:
        """Set whose names.

        Args:
            key: the hospital's secret.
            model: the model file's SHA-256.
        """
        self._key, self._model = key, model
        self._pixels: dict[Path, str] = {}

    def series(self, modality: str, study: str) -> str:
        """SeriesInstanceUID of this model's objects of a kind in a DICOM study."""
        return own_uid(self._key, "series", modality, self._model, study)

    def instance(self, kind: str, read: Iterable[tuple[Path, str, int]], *parts: object) -> str:
        """The UID of an object.

        Args:
            kind: what it is.
            read: file, SOPInstanceUID and frame of everything that it was computed from.
            parts: what tells it from others of that kind.
        """
        content = sorted({(uid, frame, self._pixels_of(path)) for path, uid, frame in read})
        return own_uid(self._key, kind, self._model, content, *parts)

    def part(self, kind: str, whole: str, *parts: object) -> str:
        """The UID of something within an object, such as a segment."""
        return own_uid(self._key, kind, self._model, whole, *parts)

    def _pixels_of(self, path: Path) -> str:
        if path not in self._pixels:
            try:
                self._pixels[path] = examine(path).pixel_sha256
            except NotWhole:
                self._pixels[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._pixels[path]
