"""Reports and outlines as viewers need them: rules of IHE AI Results, and of what OHIF and Weasis cannot do without.

The rules are ours, written after what those programs do with a file; each is shown a file that breaks it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
from pydicom import Dataset, dcmread

from tests.client.prediction.handed_over import TASK
from tests.client.prediction.test_segmentation import BRAIN, Hospital

REPORT, LIBRARY, LIBRARY_GROUP, MEASUREMENTS, GROUP = "126000", "111028", "126200", "126010", "125007"
TRACKING_ID, TRACKING_UID, FINDING, ALGORITHM, VERSION = "112039", "112040", "121071", "111001", "111003"
SEGMENT, SEGMENT_FRAME = "121191", "121214"


@pytest.fixture(scope="module", params=[TASK, BRAIN], ids=lambda task: task.name)
def hospital(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("viewed") / request.param.name, request.param)


def _reports(hospital: Hospital) -> list[Dataset]:
    return [dcmread(path) for path in sorted((hospital.out / "reports").glob("*.dcm"))]


def _outlines(hospital: Hospital) -> list[Dataset]:
    return [dcmread(path) for path in hospital.outlines()]


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def _under(item: Dataset, name: str) -> list[Dataset]:
    return [one for one in item.get("ContentSequence") or () if _name(one) == name]


def _groups(report: Dataset) -> list[Dataset]:
    return [group for all_of in _under(report, MEASUREMENTS) for group in _under(all_of, GROUP)]


def _items(item: Dataset) -> Iterator[Dataset]:
    for one in item.get("ContentSequence") or ():
        yield one
        yield from _items(one)


def _references(report: Dataset) -> set[str]:
    return {
        str(one.ReferencedSOPInstanceUID) for item in _items(report) for one in item.get("ReferencedSOPSequence") or ()
    }


def _of_frame(made: Dataset, frame: Dataset, keyword: str) -> list[Dataset]:
    return list(frame.get(keyword) or made.SharedFunctionalGroupsSequence[0].get(keyword) or ())


def ohif_report(report: Dataset) -> list[str]:
    """What OHIF's reader of TID 1500 would fall over."""
    found = [] if _name(report) == REPORT else ["is no Imaging Measurement Report"]
    if not any("ReferencedSOPSequence" in one for library in _under(report, LIBRARY)
               for group in _under(library, LIBRARY_GROUP) for one in group.ContentSequence):  # fmt: skip
        found.append("has no Image Library")
    for group in _groups(report):
        if not all(map(_name, group.ContentSequence)):
            found.append("has a nameless item in a group")
        if [_name(one) for one in group.ContentSequence if one.ValueType == "UIDREF"][:1] != [TRACKING_UID]:
            found.append("has a group whose first UID is not its tracking identifier")
        for value in (one for one in group.ContentSequence if one.ValueType == "NUM"):
            if not value.get("ContentSequence"):
                found.append("has a value that is inferred from nothing")
            if not value.MeasuredValueSequence[0].get("MeasurementUnitsCodeSequence"):
                found.append("has a value without unit")
    return found


def ai_results(report: Dataset) -> list[str]:
    """What IHE RAD "AI Results" asks of the root of a result tree (TID 1500, 1410, 1411, 1501, 4019)."""
    found = [] if _groups(report) else ["has no measurement group"]
    tracked = [str(one.UID) for group in _groups(report) for one in _under(group, TRACKING_UID)]
    if len(set(tracked)) < len(_groups(report)):
        found.append("has groups that are not told apart by tracking identifiers")
    for group in _groups(report):
        for name in (TRACKING_ID, TRACKING_UID, FINDING, ALGORITHM, VERSION):
            if len(_under(group, name)) != 1:
                found.append(f"has a group without {name}")
        if not any(one.ValueType == "IMAGE" for one in _items(group)):
            found.append("has a group without images")
        for value in (one for one in group.ContentSequence if one.ValueType == "NUM"):
            if not any(one.RelationshipType == "INFERRED FROM" for one in value.get("ContentSequence") or ()):
                found.append("has a value that is inferred from nothing")
    evidence = {
        str(one.ReferencedSOPInstanceUID)
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in report.get(keyword) or ()
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    return [*found, *(f"refers to {uid}, which is no evidence" for uid in sorted(_references(report) - evidence))]


def viewer_segmentation(made: Dataset) -> list[str]:
    """What OHIF and Weasis need of a segmentation: the series it lies on, named and coloured segments, and of each
    frame its segment and its image."""
    series = made.get("ReferencedSeriesSequence") or ()
    found = [] if series and series[0].get("SeriesInstanceUID") else ["names no series"]
    referred = {str(r.ReferencedSOPInstanceUID) for one in series for r in one.get("ReferencedInstanceSequence") or ()}
    numbers = [segment.SegmentNumber for segment in made.SegmentSequence]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append("has segments that are not numbered from 1")
    for segment in made.SegmentSequence:
        for keyword in ("SegmentLabel", "SegmentedPropertyTypeCodeSequence", "SegmentAlgorithmType",
                        "RecommendedDisplayCIELabValue", "TrackingUID"):  # fmt: skip
            if not segment.get(keyword):
                found.append(f"has a segment without {keyword}")
    if int(made.NumberOfFrames) != len(made.PerFrameFunctionalGroupsSequence):
        found.append("has another number of frames than of their descriptions")
    for frame in made.PerFrameFunctionalGroupsSequence:
        if _of_frame(made, frame, "SegmentIdentificationSequence")[0].ReferencedSegmentNumber not in numbers:
            found.append("has a frame of no segment")
        sources = [s for d in _of_frame(made, frame, "DerivationImageSequence") for s in d.SourceImageSequence]
        if not sources or not {str(s.ReferencedSOPInstanceUID) for s in sources} <= referred:
            found.append("has a frame without its image")
    return found


def test_reports_keep_the_rules_of_viewers_and_of_ai_results(hospital: Hospital) -> None:
    reports = _reports(hospital)
    assert reports
    assert [ohif_report(report) + ai_results(report) for report in reports] == [[] for _ in reports]


def test_outlines_keep_the_rules_of_viewers(hospital: Hospital) -> None:
    outlines = _outlines(hospital)
    assert outlines
    assert [viewer_segmentation(made) for made in outlines] == [[] for _ in outlines]


def test_a_report_is_the_root_of_what_was_drawn(hospital: Hospital) -> None:
    """Each segment that marks something has its group, under the same tracking identifier, and no other has."""
    drawn, told = {}, {}
    frames: dict[tuple[str, int], int] = {}
    for made in _outlines(hospital):
        masks = made.pixel_array.reshape(int(made.NumberOfFrames), int(made.Rows), int(made.Columns))
        described = made.PerFrameFunctionalGroupsSequence
        for index, (mask, frame) in enumerate(zip(masks, described, strict=True), start=1):
            number = _of_frame(made, frame, "SegmentIdentificationSequence")[0].ReferencedSegmentNumber
            frames[str(made.SOPInstanceUID), index] = number
            if mask.any():
                segment = made.SegmentSequence[number - 1]
                drawn[str(segment.TrackingUID)] = (str(made.SOPInstanceUID), number)
    for report in _reports(hospital):
        for group in _groups(report):
            for one in [*_under(group, SEGMENT), *_under(group, SEGMENT_FRAME)]:
                (reference,) = one.ReferencedSOPSequence
                (uid,) = _under(group, TRACKING_UID)
                instance = str(reference.ReferencedSOPInstanceUID)
                number = reference.get("ReferencedSegmentNumber") or frames[instance, reference.ReferencedFrameNumber]
                told[str(uid.UID)] = (instance, int(number))
    assert told == drawn
    assert drawn


def _without(name: str) -> Callable[[Dataset], None]:
    def change(report: Dataset) -> None:
        report.ContentSequence = [one for one in report.ContentSequence if _name(one) != name]

    return change


def _in_groups(change: Callable[[Dataset], None]) -> Callable[[Dataset], None]:
    return lambda report: [change(group) for group in _groups(report)] and None


def _untraced(group: Dataset) -> None:
    for value in (one for one in group.ContentSequence if one.ValueType == "NUM"):
        del value.ContentSequence


def _nameless(group: Dataset) -> None:
    del group.ContentSequence[-1].ConceptNameCodeSequence


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_without(LIBRARY), "has no Image Library"),
        (_without(MEASUREMENTS), "has no measurement group"),
        (_in_groups(_untraced), "has a value that is inferred from nothing"),
        (_in_groups(_without(TRACKING_UID)), f"has a group without {TRACKING_UID}"),
        (_in_groups(_without(ALGORITHM)), f"has a group without {ALGORITHM}"),
        (_in_groups(_nameless), "has a nameless item in a group"),
    ],
)
def test_reports_that_break_a_rule_are_told(hospital: Hospital, change: Callable[[Dataset], None], rule: str) -> None:
    report = deepcopy(_reports(hospital)[0])
    change(report)
    assert rule in ohif_report(report) + ai_results(report)


def test_a_report_whose_evidence_lacks_something_is_told(hospital: Hospital) -> None:
    report = deepcopy(_reports(hospital)[0])
    del report.CurrentRequestedProcedureEvidenceSequence
    assert any("no evidence" in one for one in ai_results(report))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda made: delattr(made, "ReferencedSeriesSequence"), "names no series"),
        (lambda made: delattr(made.SegmentSequence[0], "SegmentLabel"), "has a segment without SegmentLabel"),
        (
            lambda made: [
                f.pop("DerivationImageSequence", None)
                for f in (*made.PerFrameFunctionalGroupsSequence, *made.SharedFunctionalGroupsSequence)
            ],
            "has a frame without its image",
        ),
        (lambda made: setattr(made.SegmentSequence[0], "SegmentNumber", 7), "has a frame of no segment"),
    ],
)
def test_outlines_that_break_a_rule_are_told(
    hospital: Hospital, change: Callable[[Dataset], object], rule: str
) -> None:
    made = deepcopy(_outlines(hospital)[0])
    change(made)
    assert rule in viewer_segmentation(made)


@pytest.mark.parametrize(("program", "of"), [("dciodvfy", "dicom3tools"), ("dsrdump", "dcmtk")])
def test_others_find_no_error(hospital: Hospital, program: str, of: str) -> None:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: Debian package {of}")
    for report in sorted((hospital.out / "reports").glob("*.dcm"))[:2]:
        ended = subprocess.run([path, str(report)], capture_output=True, text=True, timeout=60)
        assert "Error" not in ended.stderr, ended.stderr
        assert ended.returncode == 0 or program == "dciodvfy"
