"""Send reports and segmentations to the hospital's own archive: C-STORE (PS3.4 annex B) or STOW-RS (PS3.18 10.5).

This is the only place where Consilium writes to an archive, and only at a person's request. It adds new series; no
image is changed. Before an examination's objects are sent, the archive is asked for that examination as it stands at
that moment (``agreement.py``). If patient, series or images are not as they were scored, nothing is written for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dicomweb_client.web import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from client.errors import ArchiveRefused, ArchiveUnreachable
from client.oversight import halt
from client.prediction.agreement import StoredObject, claim_of
from client.prediction.commitment import not_committed
from client.prediction.destination import Judge, Target, name_of, searching_at
from client.prediction.workitems import enter
from client.site import SiteSettings, secret
from client.sources.pacs.association import RemoteArchive, associate, unknown_here
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.spool import InstanceMissing
from client.sources.pacs.web import named, session_for
from client.sources.settings import DicomwebSource, DimseSource
from tasks.machine.disk import write_secret

_KINDS = (EnhancedSRStorage, SegmentationStorage)
_SYNTAXES = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
_ATTEMPTS, _FIRST_WAIT_S = 4, 1.0
_SUCCESS, _OUT_OF_RESOURCES = 0x0000, 0xA700
_WARNINGS = (0xB000, 0xB006, 0xB007)
"""Statuses of C-STORE (PS3.4 table B.2-1); after a warning the file is stored."""
StoreProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Withheld:
    """What was not written of one examination, or not confirmed, and why.

    Attributes:
        patient: PatientID in the files.
        files: their names in the output folder.
        why: a sentence with its remedy.
    """

    patient: str
    files: tuple[str, ...]
    why: str


@dataclass
class Delivery:
    """What became of the files.

    Attributes:
        stored: how many were written to the archive.
        present: how many it had already, from an earlier run.
        withheld: by examination.
        uncommitted: what is there and what the archive has not confirmed to keep, if it is to; by examination.
        workitems: how many were entered into the archive's worklist.
    """

    stored: int = 0
    present: int = 0
    withheld: list[Withheld] = field(default_factory=list)
    uncommitted: list[Withheld] = field(default_factory=list)
    workitems: int = 0


def store(
    site: SiteSettings,
    target: Target,
    files: Sequence[Path],
    progress: StoreProgress,
    into: Delivery,
    asked: Sequence[Target] = (),
    unchecked: bool = False,
    priorities: Mapping[str, str] | None = None,
) -> None:
    """Store the objects of each examination that the archives have as it was scored; segmentations before the report
    that refers to them.

    The kill switch is checked before each file.

    Args:
        into: what became of the files; true at any moment, also when this raises.
        asked: archives that the images come from, one of which must know the examination as well.
        unchecked: store also to a peer that does not answer searches, or does not have the examination; not to a
            source, and not if anything differs.
        priorities: of the workitems, by StudyInstanceUID; see ``workitems.py``.

    Raises:
        Stopped: the hospital has stopped.
        ArchiveUnreachable: the archive does not answer, however often it is asked.
        ArchiveRefused: it does not take them from us.
    """
    with ExitStack() as stack:
        others = {name_of(one): stack.enter_context(searching_at(one)) for one in asked if one != target}
        own = stack.enter_context(searching_at(target))
        line = stack.enter_context(closing(_Line(target)))
        judge = Judge(site, target, own, others, unchecked)
        done = 0
        there: list[Path] = []
        for studies_files in _by_study(files).values():
            done += len(studies_files)
            if _store_examination(site, judge, line, studies_files, into):
                there += studies_files
                into.workitems += _entered(site, target, studies_files, priorities or {})
            progress("storing", done, len(files))
    if there and isinstance(target, DimseSource) and target.storage_commitment:
        into.uncommitted += _uncommitted(target, there)


def _by_study(files: Sequence[Path]) -> dict[str, list[Path]]:
    grouped: dict[str, list[tuple[bool, Path]]] = {}
    for path in files:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SOPClassUID"])
        refers = header.SOPClassUID == EnhancedSRStorage
        grouped.setdefault(str(header.StudyInstanceUID), []).append((refers, path))
    return {study: [path for _, path in sorted(found)] for study, found in grouped.items()}


def _entered(site: SiteSettings, target: Target, files: Sequence[Path], priorities: Mapping[str, str]) -> int:
    """Enter the examination of a report into the worklist, where the source says so. Returns how many are new."""
    if not isinstance(target, DicomwebSource) or not target.workitems:
        return 0
    reports = [one for one in map(dcmread, files) if one.SOPClassUID == EnhancedSRStorage]
    return sum(enter(target, secret(site), one, priorities.get(str(one.StudyInstanceUID), "MEDIUM")) for one in reports)


def _uncommitted(target: DimseSource, files: Sequence[Path]) -> list[Withheld]:
    """What the archive does not confirm to keep, by examination."""
    headers = {path: dcmread(path, stop_before_pixels=True) for path in files}
    objects = [(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in headers.values()]
    why = not_committed(target, objects)
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for path, header in headers.items():
        if reason := why.get(str(header.SOPInstanceUID)):
            grouped.setdefault((str(header.StudyInstanceUID), str(header.PatientID), reason), []).append(path.name)
    return [Withheld(patient, tuple(names), reason) for (_, patient, reason), names in grouped.items()]


def _store_examination(site: SiteSettings, judge: Judge, line: _Line, files: Sequence[Path], into: Delivery) -> bool:
    """Whether its objects are in the archive now."""
    halt.require_running(site.stop_file)
    why, own = judge.judged([claim_of(dcmread(path, stop_before_pixels=True)) for path in files])
    if why:
        patient = str(dcmread(files[0], stop_before_pixels=True).PatientID)
        into.withheld.append(Withheld(patient, tuple(path.name for path in files), why))
        return False
    there = {one.uid for one in own}
    for path in files:
        halt.require_running(site.stop_file)
        made = dcmread(path)
        if str(made.SOPInstanceUID) in there:
            into.present += 1
            continue
        if site.earlier_reports == "replace" and _refer_to_earlier(made, own):
            _rewrite(path, made)
        line.send(made, into.stored)
        into.stored += 1
    return True


def _refer_to_earlier(report: Dataset, own: Sequence[StoredObject]) -> bool:
    """Name the earlier reports on the same question as predecessors (PS3.3 C.17.2.3). Returns whether there are any."""
    if report.SOPClassUID != EnhancedSRStorage:
        return False
    earlier = [one for one in own if one.modality == "SR" and one.description == str(report.SeriesDescription)]
    by_series: dict[str, list[StoredObject]] = {}
    for one in earlier:
        by_series.setdefault(one.series, []).append(one)
    if by_series:
        item = Dataset()
        item.StudyInstanceUID = report.StudyInstanceUID
        item.ReferencedSeriesSequence = [_series_reference(uid, objects) for uid, objects in by_series.items()]
        report.PredecessorDocumentsSequence = [item]
    return bool(by_series)


def _series_reference(uid: str, objects: Sequence[StoredObject]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = uid
    series.ReferencedSOPSequence = []
    for one in objects:
        reference = Dataset()
        reference.ReferencedSOPClassUID = one.sop_class or EnhancedSRStorage
        reference.ReferencedSOPInstanceUID = one.uid
        series.ReferencedSOPSequence.append(reference)
    return series


def _rewrite(path: Path, made: Dataset) -> None:
    """The output folder has what the archive gets."""
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    write_secret(part, stream.getvalue())
    part.replace(path)


def storing_contexts() -> list[PresentationContext]:
    """What is proposed to store; without any accepted context an association is aborted, and nobody knows why: every
    archive accepts the last."""
    return [*(build_context(kind, [*_SYNTAXES]) for kind in _KINDS), build_context(Verification)]


class _Line:
    """A way to store: one association for all files, opened with the first and again after it broke."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._association: Association | None = None

    def close(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def send(self, dataset: Dataset, stored: int) -> None:
        """Store one object.

        Args:
            stored: how many were stored before, for the message.

        Raises:
            ArchiveUnreachable, ArchiveRefused: see ``store``.
        """
        name = name_of(self._target)
        try:
            persistently(partial(self._once, dataset), _ATTEMPTS, _FIRST_WAIT_S)
        except Temporary as error:
            raise ArchiveUnreachable(
                f"{name} failed {_ATTEMPTS} times, last with: {error}. {stored} files are stored; all of them are in "
                "the output folder. Run the same command with another --out: what is stored is not stored twice"
            ) from error
        except InstanceMissing as error:
            raise ArchiveRefused(f"{name} rejects the file: {error}") from error

    def _once(self, dataset: Dataset) -> None:
        if isinstance(self._target, DicomwebSource):
            _stow(self._target, dataset)
        else:
            self._c_store(self._target, dataset)

    def _c_store(self, target: RemoteArchive | DimseSource, dataset: Dataset) -> None:
        if self._association is None or not self._association.is_established:
            self._association = associate(target, storing_contexts())
        try:
            status = self._association.send_c_store(dataset)
        except ValueError as error:  # no accepted presentation context
            raise ArchiveRefused(f"{name_of(target)} does not accept {dataset.SOPClassUID.name}: {error}") from error
        except RuntimeError as error:
            raise Temporary(f"the association broke: {error}") from error
        code = status.get("Status")
        if code is None or code == _OUT_OF_RESOURCES:
            silent = "no answer to C-STORE" + unknown_here(target)
            raise Temporary(silent if code is None else f"C-STORE ends with status 0x{code:04X}")
        if code != _SUCCESS and code not in _WARNINGS:
            comment = status.get("ErrorComment", "")
            raise ArchiveRefused(f"{name_of(target)}: C-STORE ends with status 0x{code:04X} {comment}")


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
