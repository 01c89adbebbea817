"""Send reports and segmentations to the hospital's own archive: C-STORE (PS3.4 annex B) or STOW-RS (PS3.18 10.5).

This is the only place where Consilium writes to an archive, and only at a person's request. It adds new series; no
image is changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from dicomweb_client.web import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from client.errors import ArchiveRefused, ArchiveUnreachable, SiteMisconfigured
from client.oversight import halt
from client.site import SiteSettings
from client.sources.pacs.association import RemoteArchive, associate
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.spool import InstanceMissing
from client.sources.pacs.web import named, session_for
from client.sources.settings import DicomwebSource, DimseSource
from tasks.task import Task

_KINDS = (EnhancedSRStorage, SegmentationStorage)
_SYNTAXES = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
_WHERE = re.compile(r"(?P<called>[^@\\\s]{1,16})@(?P<host>[A-Za-z0-9.-]+):(?P<port>\d{1,5})")
_ATTEMPTS, _FIRST_WAIT_S = 4, 1.0
_SUCCESS, _OUT_OF_RESOURCES = 0x0000, 0xA700
_WARNINGS = (0xB000, 0xB006, 0xB007)
"""Statuses of C-STORE (PS3.4 table B.2-1); after a warning the file is stored."""
StoreProgress = Callable[[str, int, int], None]
Target = RemoteArchive | DimseSource | DicomwebSource


def target_of(site: SiteSettings, task: Task, where: str = "") -> Target:
    """Where to store them: ``AET@host:port``, or the only archive among the task's sources.

    An address that one of the sources has is dialled as that source says, with its TLS.

    Raises:
        SiteMisconfigured: what is given is no such address; or there is no archive, or more than one.
    """
    archives = [s for s in site.sources if isinstance(s, DimseSource | DicomwebSource)]
    if where:
        match = _WHERE.fullmatch(where)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise SiteMisconfigured(f"--store-to {where!r}: must be AET@host:port, such as PACS@pacs.example.org:104")
        peer = RemoteArchive(match["host"], int(match["port"]), match["called"])
        dimse = [source for source in archives if isinstance(source, DimseSource)]
        known = (s for s in dimse if (s.host, s.port, s.called_ae) == (peer.host, peer.port, peer.called_ae))
        return next(known, peer)
    of_task = [source for source in archives if source.task == task.name]
    if len(of_task) != 1:
        raise SiteMisconfigured(
            f"{len(of_task)} sources of {task.name} are archives: choose one with --store-to AET@host:port"
        )
    return of_task[0]


def store(site: SiteSettings, target: Target, files: Sequence[Path], progress: StoreProgress) -> int:
    """Store files one at a time; the kill switch is checked before each. Returns how many.

    Raises:
        Stopped: the hospital has stopped.
        ArchiveUnreachable: the archive does not answer, however often it is asked.
        ArchiveRefused: it does not take them from us.
    """
    stored = 0
    try:
        for path in files:
            halt.require_running(site.stop_file)
            persistently(partial(_send, target, dcmread(path)), _ATTEMPTS, _FIRST_WAIT_S)
            stored += 1
            progress("storing", stored, len(files))
    except Temporary as error:
        raise ArchiveUnreachable(
            f"{_name(target)} failed {_ATTEMPTS} times, last with: {error}. {stored} of {len(files)} files are "
            "stored; all of them are in the output folder"
        ) from error
    except InstanceMissing as error:
        raise ArchiveRefused(f"{_name(target)} rejects the file: {error}") from error
    return stored


def _send(target: Target, dataset: Dataset) -> None:
    if isinstance(target, DicomwebSource):
        _stow(target, dataset)
    else:
        _c_store(target, dataset)


def _name(target: Target) -> str:
    return target.url if isinstance(target, DicomwebSource) else f"{target.called_ae} at {target.host}:{target.port}"


def _c_store(target: RemoteArchive | DimseSource, dataset: Dataset) -> None:
    # An association without any accepted context is aborted, and nobody knows why: every archive accepts the last.
    contexts = [*(build_context(kind, [*_SYNTAXES]) for kind in _KINDS), build_context(Verification)]
    association = associate(target, contexts)
    try:
        status = association.send_c_store(dataset)
    except ValueError as error:  # no accepted presentation context
        raise ArchiveRefused(f"{_name(target)} does not accept {dataset.SOPClassUID.name}: {error}") from error
    except RuntimeError as error:
        raise Temporary(f"the association broke: {error}") from error
    finally:
        if association.is_established:
            association.release()
    code = status.get("Status")
    if code is None or code == _OUT_OF_RESOURCES:
        raise Temporary("no answer to C-STORE" if code is None else f"C-STORE ends with status 0x{code:04X}")
    if code != _SUCCESS and code not in _WARNINGS:
        raise ArchiveRefused(f"{_name(target)}: C-STORE ends with status 0x{code:04X} {status.get('ErrorComment', '')}")


def _stow(target: DicomwebSource, dataset: Dataset) -> None:
    url = target.url.rstrip("/")
    with closing(session_for(target)) as session:
        client = DICOMwebClient(url, session, timeout=(target.connect_seconds, target.silence_seconds))
        client.set_http_retry_params(retry=False)
        with named(url):
            answer = client.store_instances([dataset], str(dataset.StudyInstanceUID))
    if answer.get("FailedSOPSequence"):
        code = answer.FailedSOPSequence[0].get("FailureReason")
        raise ArchiveRefused(f"{url}: STOW-RS fails with reason {code if code is None else hex(code)}")
