"""The only place that knows which module reads which kind of source.

Tested in ``tests/client/cohort/test_catalog.py``.
"""

from __future__ import annotations

from typing import Any

from client.sources.files.folder import list_folder
from client.sources.files.manifest import list_manifest
from client.sources.files.medmnist import list_medmnist
from client.sources.files.nifti import list_nifti
from client.sources.pacs.dicomweb import list_dicomweb
from client.sources.pacs.dimse import list_dimse
from client.sources.record import Lister, Listing
from client.sources.settings import DicomwebSource, DimseSource, FolderSource, Source
from client.sources.visit import Visit
from tasks.task import Task

_LISTERS: dict[str, Lister[Any]] = {
    "folder": list_folder,
    "manifest": list_manifest,
    "medmnist": list_medmnist,
    "nifti": list_nifti,
    "dicomweb": list_dicomweb,
    "dimse": list_dimse,
}


def list_source(source: Source, task: Task, withdrawn: frozenset[str], visit: Visit | None = None) -> Listing:
    """All labelled images of a source; see the kind's own module for what it raises.

    Args:
        withdrawn: PatientIDs to leave out, see ``client/cohort/withdrawals.py``; they are counted as ``WITHDRAWN``.
        visit: how a folder or an archive is visited.
    """
    if visit is not None and isinstance(source, FolderSource):
        return list_folder(source, task, withdrawn, visit)
    if visit is not None and isinstance(source, DicomwebSource):
        return list_dicomweb(source, task, withdrawn, visit)
    if visit is not None and isinstance(source, DimseSource):
        return list_dimse(source, task, withdrawn, visit)
    return _LISTERS[source.kind](source, task, withdrawn)
