"""Three kinds of breasts. What every task must keep stands in ``tests/tasks/test_every_task.py``."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from client.reading.dicom import read_frame
from tasks.breast_ultrasound_three import TASK
from tasks.task import PhantomHospital


def test_half_of_those_without_a_carcinoma_have_no_lesion_and_look_like_it(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, PhantomHospital("alder", patients=60, prevalence=0.4, images_per_patient=(1, 1)), 0)
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        label = {row["PatientID"]: row["label"] for row in csv.DictReader(file)}
    number = Counter(label.values())
    assert number.keys() == {"normal", "benign", "malignant"}
    assert abs(number["normal"] - number["benign"]) < 20
    darkest: dict[str, list[float]] = {name: [] for name in number}
    for patient, name in label.items():
        pixels = read_frame(tmp_path / "dicom" / patient / "1.dcm").pixels
        rows, columns = pixels.shape
        middle = uniform_filter(pixels, 25)[rows // 4 : rows * 2 // 3, columns // 4 : columns * 3 // 4]
        darkest[name].append(float(middle.min()))
    assert np.mean(darkest["normal"]) > np.mean(darkest["malignant"]), "a lesion is a dark place"
