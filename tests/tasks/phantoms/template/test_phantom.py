"""CHANGE: what is peculiar to this phantom. What every task must keep stands in ``tests/tasks/test_every_task.py``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from client.reading.dicom import read_frame
from client.sources.labels.table import label_of
from tasks.task import PhantomHospital
from tasks.template import TASK


def test_a_spot_is_brighter_than_what_is_around_it(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, PhantomHospital("alder", patients=40, prevalence=0.5, images_per_patient=(1, 1)), 0)
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        label = {row["PatientID"]: row["label"] for row in csv.DictReader(file)}
    shown: dict[float, list[float]] = {0.0: [], 1.0: []}
    for patient, text in label.items():
        pixels = read_frame(tmp_path / "dicom" / patient / "1.dcm").pixels
        truth = label_of(text, TASK.answer, TASK.classes)
        event = float(TASK.answer.event_of(np.array([truth]))[0])
        shown[event].append(float(uniform_filter(pixels, 15).max() - pixels.mean()))
    absent, present = (np.mean(shown[event]) for event in (0.0, 1.0))
    assert present > absent + 0.03
