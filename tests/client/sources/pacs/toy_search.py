"""What both archives on loopback find: one search over headers, that can be told how to misbehave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pydicom import Dataset

UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_NAMES = {
    "STUDY": ["PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"],
    "SERIES": ["Modality", "BodyPartExamined", "SeriesNumber", "SeriesDescription"],
    "IMAGE": ["SOPClassUID", "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "ContentTime"],
}


@dataclass
class ToySearch:
    """How searches are answered.

    Attributes:
        limit: most studies in one answer.
        ignores: keys by which it does not search: it returns everything, as the standard allows.
        hides: keywords that it does not tell.
        tells: others of a study that it does.
        tells_counts: whether it tells NumberOfStudyRelatedInstances and its like.
        doubled: matches that it gives besides, at study level, as if two patients had one study.
        most_images: most instances in one answer.
    """

    limit: int | None = None
    ignores: set[str] = field(default_factory=set)
    hides: set[str] = field(default_factory=set)
    tells: set[str] = field(default_factory=set)
    tells_counts: bool = True
    most_images: int | None = None
    doubled: list[Dataset] = field(default_factory=list)

    def found(self, headers: Iterable[Dataset], level: str, keys: Mapping[str, str]) -> tuple[list[Dataset], bool]:
        """The matches, and whether some were left out."""
        everything = list(headers)
        chosen = [header for header in everything if self._matches(everything, header, keys)]
        one_each = {str(header[UNIQUE[level]].value): header for header in reversed(chosen)}
        answers = [self._answer(everything, level, header) for header in reversed(one_each.values())]
        answers += [self._answer(everything, level, one) for one in self.doubled if level == "STUDY"]
        most = {"STUDY": self.limit, "IMAGE": self.most_images}.get(level)
        return answers[:most], most is not None and len(answers) > most

    def _matches(self, everything: list[Dataset], header: Dataset, keys: Mapping[str, str]) -> bool:
        for keyword, wanted in keys.items():
            if not wanted or keyword in self.ignores or keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
                continue
            if keyword == "ModalitiesInStudy":
                if wanted not in _modalities(everything, header):
                    return False
            elif keyword == "StudyDate" and "-" in wanted:
                first, last = wanted.split("-")
                if not (first or "0") <= str(header.StudyDate) <= (last or "9"):
                    return False
            elif not fnmatchcase(str(header.get(keyword, "")), wanted):
                return False
        return True

    def _answer(self, everything: list[Dataset], level: str, header: Dataset) -> Dataset:
        answer = Dataset()
        for keyword in (UNIQUE[level], *_NAMES[level], *(self.tells if level == "STUDY" else ())):
            if keyword in header and keyword not in self.hides:
                answer[keyword] = header[keyword]
        study = [one for one in everything if one.StudyInstanceUID == header.StudyInstanceUID]
        series = [one for one in study if one.SeriesInstanceUID == header.SeriesInstanceUID]
        if level == "STUDY":
            told = {"StudyDate": str(header.get("StudyDate", "")), "ModalitiesInStudy": _modalities(everything, header)}
            for keyword, value in told.items():
                if keyword not in self.hides:
                    setattr(answer, keyword, value)
        if self.tells_counts and level == "STUDY":
            answer.NumberOfStudyRelatedSeries = len({one.SeriesInstanceUID for one in study})
            answer.NumberOfStudyRelatedInstances = len(study)
        if self.tells_counts and level == "SERIES":
            answer.NumberOfSeriesRelatedInstances = len(series)
        return answer


def _modalities(everything: list[Dataset], header: Dataset) -> list[str]:
    return sorted({str(one.Modality) for one in everything if one.StudyInstanceUID == header.StudyInstanceUID})
