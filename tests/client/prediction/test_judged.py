"""A list and a report carry what the study has measured of the model, and say where it is not known."""

from __future__ import annotations

from pathlib import Path

from client.prediction.judged import sentences
from client.prediction.structured_report import comment
from tasks.metrics.interval import Interval
from tasks.metrics.recalibration import Recalibration
from tests.client.prediction.handed_over import head, model

MEASURED = {
    "sensitivity": Interval(0.52, 0.4, 0.64),
    "specificity": Interval(0.9, 0.85, 0.94),
    "calibration": Recalibration(0.1, 1.2),
    "calibration_error": Interval(0.18, 0.08, 0.26),
    "prevalence": 0.4,
}


def test_the_models_file_carries_what_was_measured_and_both_say_it(tmp_path: Path) -> None:
    opened = model(tmp_path, **MEASURED)
    assert opened.head.sensitivity == MEASURED["sensitivity"]
    told = " ".join(opened.remarks)
    for text in (told, comment(opened)):
        assert "sensitivity of 52 % (40 to 64) and a specificity of 90 % (85 to 94)" in text
        assert "Probabilities were off by 18 % (8 to 26) on average" in text


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    assert list(sentences(head())) == [
        "Sensitivity and specificity at the operating threshold are not known: the model's file has none."
    ]
    assert "How far probabilities are off is not known" in " ".join(
        sentences(head(calibration=Recalibration(0.1, 1.2)))
    )
    assert list(sentences(head(threshold=None))) == []
    assert "off by" not in " ".join(sentences(head(**MEASURED), measured=True))


def test_noise_that_leaves_no_point_leaves_limits(tmp_path: Path) -> None:
    hidden = MEASURED | {"sensitivity": Interval(0.5, 0.1, 0.9, firm=False)}
    assert "sensitivity of 10 to 90 % and" in " ".join(sentences(head(**hidden)))
