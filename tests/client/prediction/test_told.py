"""Classes, grades and measured values in predictions: words, table, list, report."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import torch
from pydicom.sr.codedict import codes

from client.prediction import outcome, triage
from client.prediction.local_image import LocalImage
from client.prediction.model import CheckedModel, open_model
from client.prediction.predict import Predictions, ScoredImage, ScoredPatient
from client.prediction.structured_report import comment, report_of
from client.prediction.told import Told, columns, together, told_of, value_at
from tasks import task as tasks
from tasks.answers import Answer, Grade, Measure
from tasks.codes import Code
from tasks.task import QUESTION, Finding, PhantomHospital
from tests.client.prediction import handed_over
from tests.client.prediction.handed_over import TASK, model
from tests.drawn import draw

THREE = tasks.get("breast_ultrasound_three")
MILD = Code("99TEST", "MILD", "Mild")
GRADE = Grade(("none", "mild", "severe"), "severe", (Code("99TEST", "NONE", "None"), MILD, MILD), first=1)
LENGTH = Measure(
    Code("SCT", "410668003", "Length"), Code("UCUM", "mm", "millimeter"), 0, 100, event_below=40, several="mean"
)
SWELLING = Finding("swelling", Code("SCT", "65124004", "Swelling"), GRADE)
MEASURED = replace(TASK, answer=LENGTH, secondary_findings=(SWELLING,))
KEY, AT = b"k" * 32, datetime(2026, 11, 25, 9, 30, tzinfo=UTC)


def told(task: Any, **numbers: Sequence[float]) -> Told:
    """What a model of this task tells: numbers by question."""
    asked: dict[str, Answer] = {name: task.questions[name] for name in numbers}
    return Told(asked, {name: np.array(each, np.float64) for name, each in numbers.items()})


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> CheckedModel:
    return model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> LocalImage:
    folder = tmp_path_factory.mktemp("image")
    draw(TASK, folder, PhantomHospital("birch", 1, images_per_patient=(1, 1)), 3)
    path = next((folder / "dicom").rglob("*.dcm"))
    return LocalImage("=P1", "2.25.1", "2.25.2", "2.25.2", accession="", study_date="", path=path, frame=0, frames=1)


def scored(image: LocalImage, *each: Told) -> list[ScoredImage]:
    return [ScoredImage(image, one.score or 0.5, b"", told=one) for one in each]


def test_a_model_of_classes_tells_probabilities_that_agree_with_its_score(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    opened = open_model(file, handed_over.write_model(file, handed_over.weights(THREE), asked=THREE))
    looked = opened.look(np.random.default_rng(0).random((4, *THREE.example_shape), np.float32))
    assert looked.told is not None
    for score, each in zip(looked.scores, looked.told, strict=True):
        assert sum(each.probabilities(QUESTION)) == pytest.approx(1)
        assert each.score == pytest.approx(score)
        assert each.words(QUESTION).split(",")[0] in THREE.answer.names  # type: ignore[union-attr]


def test_yes_or_no_tells_nothing_more() -> None:
    assert told_of(TASK, torch.zeros(2, 1)) is None
    assert list(columns(TASK)) == []


def test_what_is_told_in_words_by_code_and_for_a_table() -> None:
    three = told(THREE, question=[0.1, 0.62, 0.28])
    assert (three.words(QUESTION), three.cell(QUESTION)) == ("benign, 62 %", "benign")
    assert three.code(QUESTION).meaning == "Benign"
    assert three.score == pytest.approx(0.28)
    both = told(MEASURED, question=[54.3219], swelling=[0.2, 0.7, 0.1])
    assert (both.words(QUESTION), both.cell(QUESTION), both.probabilities(QUESTION)) == ("54.32 mm", 54.32, [])
    assert (both.words("swelling"), both.code("swelling")) == ("mild (2)", MILD)
    with pytest.raises(TypeError, match="no class"):
        both.code(QUESTION)


def test_images_together_have_the_mean_value_and_its_score_not_the_mean_score() -> None:
    """The score is bent at the threshold: values of 20 and 90 score 0.75 and 0.083, together 55 with 0.375."""
    each = [told(MEASURED, question=[value]) for value in (20.0, 90.0)]
    assert together(each).value(QUESTION) == 55
    assert together(each).score == pytest.approx(0.375)
    assert np.mean([one.score for one in each if one.score is not None]) == pytest.approx(0.4167, abs=1e-3)
    assert value_at(MEASURED, 0.375) == "55 mm"
    assert value_at(MEASURED, 0.5) == "40 mm"


def test_the_table_has_what_is_told_of_image_and_patient(
    opened: CheckedModel, image: LocalImage, tmp_path: Path
) -> None:
    each = scored(image, *(told(MEASURED, question=[v], swelling=[0.2, 0.7, 0.1]) for v in (20.0, 90.0)))
    measured = replace(opened, task=MEASURED)
    rows = [list(row) for row in outcome._table(measured, Predictions([ScoredPatient("P1", tuple(each))], []))]
    assert all(len(row) == len(rows[1]) for row in rows[2:])
    first = dict(zip(map(str, rows[1]), rows[2], strict=True))
    assert (first["answer of the image [mm]"], first["answer of the patient [mm]"]) == (20.0, 55.0)
    assert (first["swelling of the patient"], first["swelling, probability of mild"]) == ("mild", "0.700000")
    assert first["of the patient"] == ""
    assert first["score of the patient"] == "0.375000"


def test_the_list_is_in_the_order_of_the_event_and_shows_values(opened: CheckedModel, image: LocalImage) -> None:
    measured = replace(opened, task=MEASURED)
    each = [
        ScoredPatient(f"P{v:g}", tuple(scored(image, told(MEASURED, question=[v], swelling=[0.2, 0.7, 0.1]))))
        for v in (20.0, 90.0)
    ]
    shown = triage.page("ash", measured, Predictions(each, []), AT)
    for words in ("lowest value first", ">20 mm<", ">90 mm<", "swelling: mild (2)", "<th>Value</th>", "(the line in"):
        assert words in shown
    assert "43.0 %" not in shown
    assert each[0].score > each[1].score
    three = replace(opened, task=THREE)
    patient = ScoredPatient("P1", tuple(scored(image, told(THREE, question=[0.1, 0.62, 0.28]))))
    assert "benign, 62 %" in triage.page("ash", three, Predictions([patient], []), AT)


def test_the_report_has_the_class_by_its_code_beside_the_certainty(
    opened: CheckedModel, image: LocalImage, tmp_path: Path
) -> None:
    images = scored(image, told(THREE, question=[0.1, 0.62, 0.28]), told(THREE, question=[0.1, 0.3, 0.6]))
    _, _, whole = read(replace(opened, task=THREE), images, tmp_path)
    (certainty,) = whole.get_measurements()
    assert (certainty.name, float(certainty.value)) == (codes.DCM.CertaintyOfFinding, 44.0)
    told_class, side = whole.get_qualitative_evaluations()
    assert told_class.name.value == "ANSWER"
    assert told_class.value.meaning == "Benign"
    assert side.value.value == "AT-OR-ABOVE"


def test_the_report_has_a_value_in_its_unit_in_place_of_a_certainty(
    opened: CheckedModel, image: LocalImage, tmp_path: Path
) -> None:
    measured = replace(opened, task=MEASURED)
    images = scored(image, *(told(MEASURED, question=[v], swelling=[0.2, 0.7, 0.1]) for v in (20.0, 90.0)))
    first, _, whole = read(measured, images, tmp_path)
    for group, value, derivation in ((first, 20.0, None), (whole, 55.0, codes.SCT.Mean)):
        (measurement,) = group.get_measurements()
        assert (measurement.name.value, float(measurement.value), measurement.unit.value) == ("410668003", value, "mm")
        assert measurement.derivation == derivation
        grade = group.get_qualitative_evaluations()[0]
        assert (grade.name.meaning, grade.value.meaning) == ("Swelling", "Mild")
    assert "operating threshold is 48.4 mm" in comment(measured)
    assert "Certainties" not in comment(measured)


def read(opened: CheckedModel, images: Sequence[ScoredImage], folder: Path) -> Any:
    """The groups of a report as highdicom reads them."""
    report_of(opened, images, KEY).save_as(folder / "sr.dcm", enforce_file_format=True)
    if (validator := shutil.which("dciodvfy")) is not None:
        said = subprocess.run([validator, str(folder / "sr.dcm")], capture_output=True, text=True, timeout=60)
        assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []
    return hd.sr.srread(folder / "sr.dcm").content.get_image_measurement_groups()  # type: ignore[attr-defined]
