"""Which of an archive's instances to retrieve: labelled images of willing patients, and what outlines them.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

from collections import Counter

from client.sources.labels.table import Labels
from client.sources.pacs.spool import Instance, MissingReason, is_uid
from client.sources.pacs.walk import SEGMENTATION


def choose(
    instances: list[Instance], labels: Labels, unwilling: set[str], left_out: Counter[str], outlines: bool
) -> list[Instance]:
    """Labelled images, and with ``outlines`` the segmentations of their patients.

    Args:
        unwilling: SOPInstanceUIDs of patients who have withdrawn.
        left_out: what is not chosen is counted here, by reason. An image without a label counts if its examination has
            one; an examination without any counts once, since nobody labels a whole archive.
    """
    images = [instance for instance in instances if instance.modality != SEGMENTATION]
    chosen = _labelled(images, labels, unwilling, left_out)
    if not outlines:
        return chosen
    segmentations = [instance for instance in instances if instance.modality == SEGMENTATION]
    return chosen + _outlining(segmentations, chosen, unwilling, left_out)


def _labelled(instances: list[Instance], labels: Labels, unwilling: set[str], left_out: Counter[str]) -> list[Instance]:
    studies = {instance.study for instance in instances if name_of(instance, labels) in labels.values}
    wanted: dict[str, Instance] = {}
    unlabelled: set[str] = set()
    for instance in instances:
        if not is_uid(instance.uid):
            left_out[str(MissingReason.INVALID_UID)] += 1
        elif instance.uid in unwilling:
            left_out["WITHDRAWN"] += 1
        elif not instance.patient_id:
            left_out["NO_PATIENT_ID"] += 1
        elif instance.study not in studies:
            unlabelled.add(instance.study)
        elif name_of(instance, labels) not in labels.values:
            left_out["IMAGE_WITHOUT_LABEL"] += 1
        elif instance.uid in wanted:
            left_out["DUPLICATE_INSTANCE"] += 1
        else:
            wanted[instance.uid] = instance
    left_out.update({"STUDY_WITHOUT_LABEL": len(unlabelled)} if unlabelled else {})
    return list(wanted.values())


def _outlining(
    segmentations: list[Instance], wanted: list[Instance], unwilling: set[str], left_out: Counter[str]
) -> list[Instance]:
    """Those that may refer to a wanted image: of the same patient, of whatever examination. What they refer to is told
    by their files; which of them fit no image is counted when those are read."""
    patients = {image.patient_id for image in wanted}
    named = {one.uid: one for one in segmentations if is_uid(one.uid) and one.uid not in unwilling}
    chosen = [one for one in named.values() if one.patient_id in patients]
    if others := len(named) - len(chosen):
        left_out["SEGMENTATION_WITHOUT_IMAGE"] += others
    return chosen


def name_of(instance: Instance, labels: Labels) -> str:
    """What the labels would call it by."""
    return {
        "SOPInstanceUID": instance.uid,
        "StudyInstanceUID": instance.study,
        "AccessionNumber": instance.accession,
        "PatientID": instance.patient_id,
    }[labels.key]
