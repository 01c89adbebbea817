"""Answers of other kinds than yes or no from structured reports: what they say, cannot say, and contradict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from client.errors import SiteMisconfigured
from client.sources.labels import report_answers
from client.sources.labels.annotations import labels_of, read_answers
from client.sources.labels.table import Labels
from client.sources.settings import FolderSource, ReportAnswers
from tasks import task as tasks
from tasks.answers import Measure
from tests.client.sources import small_hospital
from tests.client.sources.labels.test_annotations import ASSESSMENT, _group, _report

HEART, BREAST = tasks.get("heart_size"), tasks.get("breast_ultrasound_three")
RATIO = Code("CTR", "99CONSILIUM", "Cardiothoracic ratio")
PERCENT, ONE, METRE = Code("%", "UCUM", "percent"), Code("1", "UCUM", "no units"), Code("m", "UCUM", "metre")
MILD = Code("255604002", "SCT", "Mild")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """Eight images of four patients, with all that highdicom copies from them."""
    found: list[Dataset] = [dcmread(path) for path in small_hospital.fill(tmp_path_factory.mktemp("images"))]
    for image in found:
        for keyword in ("PatientSex", "AccessionNumber", "StudyID", "StudyTime", "Laterality", "FrameOfReferenceUID"):
            if keyword not in image:
                setattr(image, keyword, "1.2.3" if keyword.endswith("UID") else "")
    return found


def _measured(image: Dataset, *values: tuple[float, Code], name: Code = RATIO, **more: Any) -> Any:
    return _group(image, measurements=[hd.sr.Measurement(name, value, unit) for value, unit in values], **more)


def _read(folder: Path, task: tasks.Task = HEART, **settings: Any) -> Labels:
    return read_answers(ReportAnswers(kind="sr_answers", path=folder, **settings), task)


def test_a_measurement_is_converted_to_the_tasks_unit_and_named_where_it_cannot_be(
    tmp_path: Path, images: list[Dataset]
) -> None:
    told = [(48.5, PERCENT), (0.52, ONE), (0.5, METRE), (85.0, PERCENT), (0.2, ONE), (44.0, PERCENT)]
    groups = [_measured(image, value) for image, value in zip(images, told, strict=False)]
    groups[5] = _measured(images[5], told[5], name=codes.SCT.Diameter)
    _report(tmp_path / "a.dcm", images, groups)
    labels = _read(tmp_path)
    assert labels.key == "SOPInstanceUID"
    assert labels.values == {str(images[0].SOPInstanceUID): 48.5, str(images[1].SOPInstanceUID): 52.0}
    assert labels.left_out == {
        "MEASUREMENT_OF_OTHER_UNIT": 1, "MEASUREMENT_OUT_OF_RANGE": 2, "GROUP_WITHOUT_LABEL": 1
    }  # fmt: skip
    (warning,) = labels.warnings
    assert "a.dcm (0.5 UCUM:m), a.dcm (85 %), a.dcm (0.2 1)" in warning
    with pytest.raises(SiteMisconfigured, match="GROUP_WITHOUT_LABEL 6"):
        _read(tmp_path, concepts={"question": "SCT:1"})
    assert _read(tmp_path, concepts={"question": "SCT:81827009"}).values == {str(images[5].SOPInstanceUID): 44.0}


def test_nothing_is_chosen_of_what_contradicts_in_a_group_or_in_several_reports(
    tmp_path: Path, images: list[Dataset]
) -> None:
    first, second, third, fourth = images[:4]
    _report(tmp_path / "a.dcm", images, [
        _measured(first, (48.0, PERCENT), (0.48, ONE)), _measured(second, (48.0, PERCENT), (49.0, PERCENT)),
        _measured(third, (45.0, PERCENT)), _measured(fourth, (45.0, PERCENT)),
    ])  # fmt: skip
    _report(tmp_path / "b.dcm", images, [_measured(third, (46.0, PERCENT)), _measured(fourth, (0.45, ONE))])
    labels = _read(tmp_path)
    assert labels.values == {str(first.SOPInstanceUID): 48.0, str(fourth.SOPInstanceUID): 45.0}
    assert labels.left_out == {
        "GROUP_CONTRADICTS_ITSELF": 1, "CONTRADICTING_LABEL_ROWS": 1, "DUPLICATE_LABEL_ROW": 1
    }  # fmt: skip


def test_a_value_and_a_grade_in_one_group_are_label_and_finding(tmp_path: Path, images: list[Dataset]) -> None:
    first, second, third = images[:3]
    _report(tmp_path / "a.dcm", images, [
        _measured(first, (51.0, PERCENT), finding_type=MILD),
        _measured(second, (40.0, PERCENT)),
        _group(third, finding_type=MILD),
    ])  # fmt: skip
    labels = _read(tmp_path)
    assert labels.values == {str(first.SOPInstanceUID): 51.0, str(second.SOPInstanceUID): 40.0}
    assert labels.findings == {str(first.SOPInstanceUID): (1.0,), str(third.SOPInstanceUID): (1.0,)}
    assert not labels.left_out
    _report(tmp_path / "b.dcm", images, [_group(third, finding_type=Code("6736007", "SCT", "Moderate"))])
    again = _read(tmp_path)
    assert again.left_out == {"CONTRADICTING_FINDINGS": 1}
    assert str(third.SOPInstanceUID) not in again.findings or again.findings[str(third.SOPInstanceUID)] == (None,)


def test_classes_are_codes_of_the_task_or_of_the_hospital(tmp_path: Path, images: list[Dataset]) -> None:
    of_task, of_house = Code("30807003", "SCT", "Benign"), Code("B4", "99HOSPITAL", "birads four")
    judged = [
        _group(image, qualitative_evaluations=[hd.sr.QualitativeEvaluation(ASSESSMENT, code)])
        for image, code in zip(images, (of_task, of_house), strict=False)
    ]
    _report(tmp_path / "a.dcm", images, [*judged, _group(images[2], finding_type=of_task)])
    (benign, malignant, third) = (str(image.SOPInstanceUID) for image in images[:3])
    assert _read(tmp_path, BREAST).values == {third: 1.0}
    where = {"concepts": {"question": "SCT:363787002"}}
    assert _read(tmp_path, BREAST, **where).values == {benign: 1.0}
    mine = _read(tmp_path, BREAST, **where, codes={"malignant": ["99HOSPITAL:B4"]})
    assert mine.values == {benign: 1.0, malignant: 2.0}
    for wrong in ({"concepts": {"enlargement": "finding"}}, {"codes": {"malign": ["SCT:1"]}}):
        with pytest.raises(SiteMisconfigured, match="is nothing that breast_ultrasound_three knows"):
            _read(tmp_path, BREAST, **wrong)


def test_each_kind_of_annotation_serves_its_kind_of_question(tmp_path: Path) -> None:
    def source(task: str, **annotations: Any) -> FolderSource:
        common: dict[str, Any] = {"kind": "folder", "issuer": "a", "path": tmp_path}
        return FolderSource(task=task, annotations={"path": tmp_path, **annotations}, **common)  # type: ignore[arg-type]

    with pytest.raises(SiteMisconfigured, match=r"'masks': heart_size asks for a number in %, 30 to 70.*'sr_answers'"):
        labels_of(source("heart_size", kind="masks"), HEART)
    with pytest.raises(SiteMisconfigured, match="breast_ultrasound asks for yes or no; use kind 'sr'"):
        labels_of(source("breast_ultrasound", kind="sr_answers"), tasks.get("breast_ultrasound"))


def clipped(answer: Measure) -> Measure:
    return replace(answer, low=-1e9, high=1e9)


def blind(answer: Measure) -> Measure:
    return replace(answer, units=(*answer.units, ("m", 100.0)))


@pytest.mark.parametrize("wrong", [clipped, blind])
def test_wrong_versions_of_the_rules_are_seen(
    tmp_path: Path, images: list[Dataset], wrong: Callable[[Measure], Measure]
) -> None:
    """A reader that takes any value, or any unit, would label what the first test counts."""
    _report(tmp_path / "a.dcm", images, [_measured(images[0], (85.0, PERCENT)), _measured(images[1], (0.5, METRE)),
                                         _measured(images[2], (50.0, PERCENT))])  # fmt: skip
    assert isinstance(HEART.answer, Measure)
    counted = Counter[str]()
    source = ReportAnswers(kind="sr_answers", path=tmp_path)
    report_answers.answers_of_reports(source, [tmp_path / "a.dcm"], replace(HEART, answer=wrong(HEART.answer)), counted)
    assert counted != Counter(MEASUREMENT_OF_OTHER_UNIT=1, MEASUREMENT_OUT_OF_RANGE=1)
