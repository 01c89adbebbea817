"""The one place that knows which file reads which kind of source."""

from __future__ import annotations

from client.sources.folder import list_folder
from client.sources.manifest import list_manifest
from client.sources.medmnist import list_medmnist
from client.sources.record import Listing
from client.sources.settings import FolderSource, ManifestSource, Source
from tasks.task import Task


def list_source(source: Source, task: Task) -> Listing:
    """All labelled images of a source; see the kind's own file for what it raises."""
    if isinstance(source, FolderSource):
        return list_folder(source, task)
    if isinstance(source, ManifestSource):
        return list_manifest(source)
    return list_medmnist(source)
