"""Go through an archive: its studies in scope, the series of those that may have a label, and their instances.

An examination that nobody has labelled is not opened. What an answer leaves out is noticed: against the counts that the
archive tells one level above, and for studies as ``date_split.py`` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from client.errors import SiteMisconfigured
from client.sources.labels.table import Labels
from client.sources.pacs.date_split import Days, whole
from client.sources.pacs.scope import in_scope, study_in_scope
from client.sources.pacs.search import PATIENT, Match, Search, number, value
from client.sources.pacs.seen import SeenImages
from client.sources.pacs.spool import Instance
from client.sources.settings import Scope
from client.sources.visit import Sighting

SEGMENTATION = "SEG"
"""Modality of segmentations (PS3.3 C.8.20.1)."""
_MOST_NAMED = 500
"""With more names than this, all studies in scope are asked for at once and compared here."""
_WILD = set("*?\\")
_TOLD = (
    *(*PATIENT, "AccessionNumber", "StudyDate", "StudyTime", "StudyDescription"),
    *("Modality", "BodyPartExamined", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime"),
    *("SOPClassUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns", "ContentDate", "ContentTime"),
    "BurnedInAnnotation",
)
"""What is remembered of an instance, to notice a change."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and the total."""


@dataclass
class Found:
    """What an archive has in scope.

    Attributes:
        instances: in the studies that were opened.
        studies: UIDs of all studies in scope, also of those that were not opened.
        left_out: series and studies by reason.
        opened: UIDs of those that were.
        outside: UIDs of studies that the archive has, and that are out of scope or have no label any more.
        short: UIDs of studies of which the archive did not list everything.
        example: a value of the attribute that labels are keyed by, of a study that was not opened.
    """

    instances: list[Instance] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    opened: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    short: set[str] = field(default_factory=set)
    example: str = ""


class Walk:
    """Goes through one archive for one source."""

    def __init__(
        self,
        search: Search,
        scope: Scope,
        labels: Labels,
        own: Callable[[Match], bool],
        progress: Progress,
        seen: SeenImages | None = None,
    ) -> None:
        """Prepare.

        Args:
            own: whether a series is Consilium's own, see ``own_under``.
            seen: what earlier searches have seen, where labels name no examination.
        """
        self._seen = seen
        self._search, self._scope, self._labels = search, scope, labels
        self._own, self._progress = own, progress
        self._by_name = False

    def find(self, outlines: bool) -> Found:
        """Everything in scope that may have a label, and with ``outlines`` the segmentations of those patients.

        Raises:
            AnswerIncomplete: the archive leaves out studies, and says so.
            ArchiveUnreachable, ArchiveRefused: as the search.
        """
        found = Found()
        studies = self._studies(found)
        labelled = [study for study in studies if self._may_have_label(study) and not self._is_needless(study)]
        chosen = {value(study, "StudyInstanceUID"): study for study in labelled}
        if outlines:
            chosen |= self._of_segmentations(studies, labelled)
        closed = [study for study in studies if value(study, "StudyInstanceUID") not in chosen]
        found.left_out["STUDY_WITHOUT_LABEL"] += len(closed)
        found.example = next((value(study, self._labels.key) for study in closed), "")
        for done, study in enumerate(chosen.values(), start=1):
            self.open(study, found)
            self._progress("searching the archive", done, len(chosen))
        found.left_out += Counter()
        return found

    def takes(self, study: Match) -> bool:
        """Whether a study is in scope and may have a label."""
        return (
            study_in_scope(self._scope, study)
            and self._has_procedure(study)
            and self._of_modality(study)
            and self._may_have_label(study)
        )

    def is_renamed(self, study: Match) -> bool:
        """Whether its patient has another number than the labels have."""
        return self._labels.key == "PatientID" and value(study, "PatientID") not in self._labels.values

    def open_missed(self, study: Match, found: Found) -> None:
        """Add the instances of a study that the search did not find; of a patient with another number than the labels
        have, what else the archive has under that number."""
        number = value(study, "PatientID")
        others = [study]
        if self.is_renamed(study) and self._by_name and not _WILD & set(number):
            others += self._search.studies({"PatientID": number, **self.returned}).matches
        for one in others:
            uid = value(one, "StudyInstanceUID")
            if uid not in found.opened and self.takes(one):
                found.studies.add(uid)
                self.open(one, found)

    def open(self, study: Match, found: Found) -> None:
        """Add a study's instances."""
        uid, before = value(study, "StudyInstanceUID"), len(found.instances)
        found.opened.add(uid)
        answer = self._search.series(uid)
        if answer.cut or len(answer.matches) < (number(study, "NumberOfStudyRelatedSeries") or 0):
            found.short.add(uid)
        for series in answer.matches:
            modality = value(series, "Modality").upper()
            if self._own(series):
                word = "REPORT_OF_CONSILIUM" if modality == "SR" else "SEGMENTATION_OF_CONSILIUM"
                wanted = modality in {name.upper() for name in self._scope.modalities}
                found.left_out[word] += (number(series, "NumberOfSeriesRelatedInstances") or 1) if wanted else 0
            elif in_scope(self._scope, series, found.left_out):
                self._open_series(study, series, found)
        if uid in found.short and len(found.instances) == before:
            found.left_out["STUDY_NOT_LISTED"] += 1
        if self._seen is not None and uid not in found.short:
            self._seen.note(study, [instance.uid for instance in found.instances[before:]])

    def _open_series(self, study: Match, series: Match, found: Found) -> None:
        names = value(study, "StudyInstanceUID"), value(series, "SeriesInstanceUID")
        answer = self._search.instances(*names)
        missing = (number(series, "NumberOfSeriesRelatedInstances") or 0) - len(answer.matches)
        if answer.cut or missing > 0:
            found.short.add(names[0])
            found.left_out["INSTANCES_NOT_LISTED"] += max(missing, 1)
        found.instances += [_instance(study, series, match) for match in answer.matches]

    def _studies(self, found: Found) -> list[Match]:
        named = self._named()
        self._by_name = bool(named)  # if no name is known there, it may not search by such names
        matches = named or self._in_days()
        studies = [study for study in matches if study_in_scope(self._scope, study) and self._has_procedure(study)]
        found.studies = {value(study, "StudyInstanceUID") for study in studies}
        return studies

    @property
    def returned(self) -> dict[str, str]:
        """What a search for studies must return besides the usual, as keys that match everything."""
        return {"ProcedureCodeSequence": ""} if self._scope.procedures else {}

    def _has_procedure(self, study: Match) -> bool:
        if not self._scope.procedures:
            return True
        if "ProcedureCodeSequence" not in study:
            raise SiteMisconfigured(
                "scope.procedures: the archive does not tell ProcedureCodeSequence of its studies; use "
                "`study_descriptions`, `accessions` or `studies` instead"
            )
        return not set(self._scope.procedures).isdisjoint(study["ProcedureCodeSequence"])

    def _in_days(self) -> list[Match]:
        """One search per modality: neither QIDO-RS nor every C-FIND provider searches for either of two."""
        matches: dict[str, Match] = {}
        for modality in self._scope.modalities:
            keys = {"ModalitiesInStudy": modality, **self.returned}
            for study in whole(self._search, keys, Days(self._scope.since, self._scope.until)):
                matches.setdefault(value(study, "StudyInstanceUID"), study)
        return list(matches.values())

    def _named(self) -> list[Match] | None:
        """The studies that the scope or the labels name, each asked for by itself; ``None`` if they name none, or too
        many, or the archive does not search by such a name."""
        key, names = self._names()
        if not names or len(names) > _MOST_NAMED or any(_WILD & set(name) or not name for name in names):
            return None
        matches: dict[str, Match] = {}
        for done, name in enumerate(names, start=1):
            answer = self._search.studies({key: name, **self.returned})
            if any(value(study, key) != name for study in answer.matches):
                return None
            for study in answer.matches:
                if self._of_modality(study):
                    matches.setdefault(value(study, "StudyInstanceUID"), study)
            self._progress("searching the archive", done, len(names))
        return list(matches.values())

    def _names(self) -> tuple[str, list[str]]:
        if self._scope.studies:
            return "StudyInstanceUID", sorted(set(self._scope.studies))
        if self._scope.accessions:
            return "AccessionNumber", sorted(set(self._scope.accessions))
        if self._labels.key == "SOPInstanceUID":
            return "", []
        return self._labels.key, sorted({*self._labels.values, *self._labels.successors})

    def _of_modality(self, study: Match) -> bool:
        told = {modality.upper() for modality in study.get("ModalitiesInStudy", ())}
        return not told or not told.isdisjoint(modality.upper() for modality in self._scope.modalities)

    def _is_needless(self, study: Match) -> bool:
        return self._seen is not None and self._seen.is_needless(study)

    def _may_have_label(self, study: Match) -> bool:
        key = self._labels.key
        if key not in study or value(study, key) in self._labels.values:
            return True
        patient = value(study, "PatientID")
        return (
            self.is_renamed(study)
            and self._labels.known_as(Sighting(patient, "", "", value(study, "StudyInstanceUID")))
            in self._labels.values
        )

    def _of_segmentations(self, studies: Iterable[Match], labelled: Iterable[Match]) -> Iterator[tuple[str, Match]]:
        """Studies of the same patients that have segmentations: those of another workstation, for instance."""
        if SEGMENTATION not in {modality.upper() for modality in self._scope.modalities}:
            return
        patients = {value(study, "PatientID") for study in labelled} - {""}
        for patient in sorted(patients) if self._by_name else ():
            if not _WILD & set(patient):
                studies = [*studies, *self._search.studies({"PatientID": patient, "ModalitiesInStudy": "SEG"}).matches]
        for study in studies:
            told = {modality.upper() for modality in study.get("ModalitiesInStudy", ())}
            if value(study, "PatientID") in patients and SEGMENTATION in told:
                yield value(study, "StudyInstanceUID"), study


def _instance(study: Match, series: Match, match: Match) -> Instance:
    merged = {**match, **series, **study}  # of what several levels tell, the highest is what the archive corrects
    return Instance(
        value(study, "StudyInstanceUID"),
        value(series, "SeriesInstanceUID"),
        uid=value(match, "SOPInstanceUID"),
        patient_id=value(merged, "PatientID"),
        accession=value(merged, "AccessionNumber"),
        modality=value(series, "Modality"),
        sop_class=value(match, "SOPClassUID"),
        held=frozenset(match.get("AvailableTransferSyntaxUID", ())),
        told={keyword: "\\".join(merged[keyword]) for keyword in _TOLD if keyword in merged},
    )
