"""Whether patient, study, series and images are in an archive as an object about to be stored there says.

An object is made of files that were retrieved some time ago. Since then the archive may have merged or corrected the
patient, moved or deleted images. What would be stored then is a finding on the wrong person, or revives the deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset

from client.sources.pacs.search import PATIENT, Match, Search, value
from client.sources.pacs.spool import plain

_COMPARED = (*PATIENT, "AccessionNumber")
_WORDS = {
    "PatientName": "another PatientName",
    "PatientBirthDate": "another PatientBirthDate",
    "PatientSex": "another PatientSex",
    "AccessionNumber": "another AccessionNumber",
    "IssuerOfPatientID": "another IssuerOfPatientID",
}


@dataclass(frozen=True)
class WrittenFacts:
    """What an object says.

    Attributes:
        study: StudyInstanceUID.
        texts: patient and accession, by keyword.
        images: SOPInstanceUIDs of the images it refers to, by SeriesInstanceUID.
    """

    study: str
    texts: Mapping[str, str]
    images: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class StoredObject:
    """One of Consilium's own objects in an archive."""

    uid: str
    series: str
    sop_class: str
    modality: str
    description: str


@dataclass(frozen=True)
class Standing:
    """How a study stands in an archive.

    Attributes:
        known: the archive has such a study.
        problems: what differs, a phrase each.
        own: Consilium's own objects in it.
    """

    known: bool
    problems: tuple[str, ...] = ()
    own: tuple[StoredObject, ...] = field(default=())


def claim_of(made: Dataset) -> WrittenFacts:
    """What a structured report or a segmentation says."""
    images: dict[str, set[str]] = {}
    for series in _referenced_series(made):
        uids = images.setdefault(str(series.SeriesInstanceUID), set())
        for keyword in ("ReferencedSOPSequence", "ReferencedInstanceSequence"):
            uids.update(str(one.ReferencedSOPInstanceUID) for one in series.get(keyword) or ())
    texts = {keyword: str(made.get(keyword) or "").strip() for keyword in _COMPARED}
    return WrittenFacts(str(made.StudyInstanceUID), texts, {series: frozenset(uids) for series, uids in images.items()})


def _referenced_series(made: Dataset) -> Iterator[Dataset]:
    """PS3.3 C.17.2.3 of a report, C.12.1.1.2 of a segmentation; those of the object's own study."""
    yield from made.get("ReferencedSeriesSequence") or ()
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in made.get(keyword) or ():
            if study.StudyInstanceUID == made.StudyInstanceUID:
                yield from study.ReferencedSeriesSequence


def standing(claims: Sequence[WrittenFacts], search: Search, own: Callable[[Match], bool]) -> Standing:
    """Ask an archive for the study as it is now, at each level.

    Args:
        claims: of all objects of one study.
        own: whether a series is Consilium's own.

    Raises:
        ArchiveUnreachable, ArchiveRefused: as the search.
    """
    (study,) = {claim.study for claim in claims}
    matches = [one for one in search.studies({"StudyInstanceUID": study}).matches if _is_study(one, study)]
    if not matches:
        return Standing(known=False)
    problems = [problem for match in matches for claim in claims for problem in _of_patient(claim, match)]
    if len({value(match, "PatientID") for match in matches}) > 1:
        problems.append("it has this examination under several patients")
    series = {value(one, "SeriesInstanceUID"): one for one in search.series(study).matches}
    images: dict[str, set[str]] = {}
    for claim in claims:
        for uid, instances in claim.images.items():
            if not own({"SeriesInstanceUID": (uid,)}):  # a report refers to segmentations that come with it
                images.setdefault(uid, set()).update(instances)
    listed = {uid: _uids(search, study, uid) for uid, one in series.items() if uid in images or own(one)}
    problems += _of_images(images, listed)
    mine = [stored for uid, one in series.items() if own(one) for stored in _stored(one, listed[uid])]
    return Standing(True, tuple(dict.fromkeys(problems)), tuple(mine))


def _is_study(match: Match, study: str) -> bool:
    """Archives are free to ignore a key (PS3.4 C.2.2.1.3)."""
    return value(match, "StudyInstanceUID") == study


def _uids(search: Search, study: str, series: str) -> dict[str, Match]:
    return {value(one, "SOPInstanceUID"): one for one in search.instances(study, series).matches}


def _stored(series: Match, instances: Mapping[str, Match]) -> Iterator[StoredObject]:
    for uid, one in instances.items():
        yield StoredObject(
            uid=uid,
            series=value(series, "SeriesInstanceUID"),
            sop_class=value(one, "SOPClassUID"),
            modality=value(series, "Modality"),
            description=value(series, "SeriesDescription"),
        )


def _of_patient(claim: WrittenFacts, study: Match) -> Iterator[str]:
    """What is untold is no contradiction, except of the PatientID, without which nothing can be compared; an archive
    that tells an empty name has removed it."""
    told = value(study, "PatientID")
    if not told:
        yield "it does not tell the PatientID"
    elif told != claim.texts["PatientID"]:
        yield f"it has this examination under PatientID {told!r}, not {claim.texts['PatientID']!r}"
    for keyword, phrase in _WORDS.items():
        ours, theirs = claim.texts[keyword], value(study, keyword)
        if keyword == "PatientName":
            if keyword in study and not _same_name(ours, theirs):
                yield f"it has {phrase}"
        elif ours and theirs and plain(ours) != plain(theirs):
            yield f"it has {phrase}"


def _same_name(one: str, other: str) -> bool:
    """Whether two names agree in every component group (PS3.5 6.2.1) that both have, and have one in common."""
    groups = [(plain(a), plain(b)) for a, b in zip(one.split("="), other.split("="), strict=False)]
    both = [(a, b) for a, b in groups if a and b]
    return all(a == b for a, b in both) and (bool(both) or not (plain(one) or plain(other)))


def _of_images(images: Mapping[str, set[str]], listed: Mapping[str, Mapping[str, Match]]) -> Iterator[str]:
    if absent := [series for series in images if not listed.get(series)]:
        yield f"{len(absent)} of {len(images)} series are not in this examination any more"
    missing = sum(len(uids - listed[series].keys()) for series, uids in images.items() if listed.get(series))
    if missing:
        yield f"{missing} of the images are not in their series any more"
