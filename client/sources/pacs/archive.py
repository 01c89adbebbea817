"""What DICOMweb and DIMSE have in common: choose what to retrieve, spool it, and continue as with a folder.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from client.errors import EmptySource, LabelsMatchNothing
from client.sources.acquisition import acquisition_reader
from client.sources.files.folder import list_files
from client.sources.labels.annotations import labels_of
from client.sources.labels.table import Labels
from client.sources.pacs.fidelity import sentences
from client.sources.pacs.spool import Instance, MissingReason, Spool, is_uid, opened
from client.sources.record import Listing
from client.sources.settings import DicomwebSource, DimseSource, Scope
from tasks.task import Task

_SEGMENTATION = "SEG"
"""Modality of segmentations (PS3.3 C.8.20.1)."""


class Archive(Protocol):
    """An archive that can be searched and sends what it stores."""

    def check(self) -> None:
        """Send a minimal request, to see whether it answers.

        Raises:
            ArchiveUnreachable, ArchiveRefused: as below, with a remedy.
        """

    def find(self, scope: Scope) -> tuple[list[Instance], Counter[str]]:
        """All instances in scope, and the number of series left out by reason.

        Raises:
            ArchiveUnreachable: it does not answer, however often it is asked.
            ArchiveRefused: it does not accept us.
        """

    def fetch(self, instances: list[Instance], spool: Spool) -> Counter[MissingReason]:
        """Retrieve these into the spool; failures are counted.

        Raises:
            ArchiveUnreachable, ArchiveRefused: as above; what was fetched before stays.
            SpoolFull: they do not fit.
        """

    def remarks(self, spool: Spool) -> list[str]:
        """Warnings about the archive's behaviour, one sentence each."""


def list_archive(
    source: DicomwebSource | DimseSource, archive: Archive, owner: str, task: Task, withdrawn: frozenset[str]
) -> Listing:
    """Update the spool from the archive, then list it as a folder.

    Only labelled images of patients who have not withdrawn are fetched, and the segmentations of
    their studies where the task outlines; what is spooled and whole is not fetched again.

    Raises:
        EmptySource: the archive has no image in scope.
        LabelsMatchNothing, SiteMisconfigured: as for a folder.
        ArchiveUnreachable, ArchiveRefused, SpoolFull: see ``Archive``.
    """
    labels = labels_of(source, task)
    instances, left_out = archive.find(source.scope)
    if not instances:
        raise EmptySource(f"{owner} has no image for {source.scope.modalities} {source.scope.dates() or 'of any date'}")
    outlines = [instance for instance in instances if instance.modality == _SEGMENTATION]
    images = [instance for instance in instances if instance.modality != _SEGMENTATION]
    wanted = _choose(images, labels, withdrawn, left_out)
    if task.structures:
        wanted += _outlining(outlines, wanted)
    with opened(
        source.path, f"{owner} for {task.name} of {source.issuer}", source.max_gigabytes, source.holds
    ) as spool:
        spool.forget_others(wanted)
        refused = archive.fetch(spool.missing(wanted), spool)
        left_out.update({str(reason): number for reason, number in refused.items()})
        warnings = sentences(spool.verdicts(), refused[MissingReason.TRANSCODED]) + archive.remarks(spool)
        if not spool.digests():
            return _nothing(owner, instances, wanted, labels, Listing([], left_out + labels.left_out, warnings))
        answered = {_name(i, labels) for i in instances}
        acquired = acquisition_reader(source, task)
        listing = list_files(spool.images, labels, withdrawn=withdrawn, acquired=acquired, task=task, answered=answered)
    return Listing(listing.records, left_out + listing.left_out, warnings + listing.warnings)


def _nothing(
    owner: str, instances: list[Instance], wanted: list[Instance], labels: Labels, listing: Listing
) -> Listing:
    """Nothing is spooled: an error that gives the reason, unless all patients have withdrawn."""
    if wanted:
        story = "; ".join([f"{reason} {number}" for reason, number in listing.left_out.items()] + listing.warnings)
        raise EmptySource(f"none of {len(wanted)} images could be retrieved from {owner}: {story}")
    if listing.left_out["IMAGE_WITHOUT_LABEL"]:
        raise LabelsMatchNothing(
            f"none of {len(instances)} images of {owner} has a label: {labels.path} is keyed by {labels.key}, with "
            f"values like {next(iter(labels.values), 'none')!r}; the archive has {_name(instances[0], labels)!r}"
        )
    return listing


def _choose(
    instances: list[Instance], labels: Labels, withdrawn: frozenset[str], left_out: Counter[str]
) -> list[Instance]:
    wanted: dict[str, Instance] = {}
    for instance in instances:
        if not is_uid(instance.uid):
            left_out[str(MissingReason.INVALID_UID)] += 1
        elif instance.patient_id in withdrawn:
            left_out["WITHDRAWN"] += 1
        elif not instance.patient_id:
            left_out["NO_PATIENT_ID"] += 1
        elif _name(instance, labels) not in labels.values:
            left_out["IMAGE_WITHOUT_LABEL"] += 1
        elif instance.uid in wanted:
            left_out["DUPLICATE_INSTANCE"] += 1
        else:
            wanted[instance.uid] = instance
    return list(wanted.values())


def _outlining(segmentations: list[Instance], wanted: list[Instance]) -> list[Instance]:
    """Those that may refer to a wanted image: of the same examination and patient."""
    studies = {(image.study, image.patient_id) for image in wanted}
    chosen = [one for one in segmentations if is_uid(one.uid) and (one.study, one.patient_id) in studies]
    return list({one.uid: one for one in chosen}.values())


def _name(instance: Instance, labels: Labels) -> str:
    return {
        "SOPInstanceUID": instance.uid,
        "StudyInstanceUID": instance.study,
        "AccessionNumber": instance.accession,
        "PatientID": instance.patient_id,
    }[labels.key]
