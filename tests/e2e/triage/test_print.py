"""The reading room's list on paper: a real browser prints it, and every page says what it must not be used for."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from client.cohort.picture import png
from client.prediction import triage
from client.prediction.local_image import LeftOut, LocalImage
from client.prediction.predict import Predictions, ScoredImage, ScoredPatient
from tests.client.prediction.handed_over import model

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None or shutil.which("pdftotext") is None:
        pytest.skip("needs Chromium, and pdftotext of the Debian package poppler-utils")
    return found


def test_every_printed_page_is_marked(browser: str, tmp_path: Path) -> None:
    seen = png(np.random.default_rng(0).random((1, 32, 32), np.float32))
    patients = []
    for number in range(40):
        image = LocalImage(f"P-{number:03d}", "1.2", "1.2", "1.2", "A1", "20261124", Path("x.dcm"), 0, 1)
        patients.append(ScoredPatient(image.patient, (ScoredImage(image, 1 - number / 50, seen),) * 3))
    left = [LeftOut(f"Q-{number:03d}", Path(f"{number}.dcm"), "organ") for number in range(120)]
    page, paper = tmp_path / "triage.html", tmp_path / "triage.pdf"
    made = datetime(2026, 11, 25, tzinfo=UTC)
    page.write_text(triage.page("alder", model(tmp_path), Predictions(patients, left), made), "utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    subprocess.run([*command, f"--print-to-pdf={paper}", page.as_uri()], check=True, capture_output=True, timeout=120)
    told = subprocess.run(["pdftotext", "-layout", paper, "-"], check=True, capture_output=True, text=True, timeout=60)
    pages = told.stdout.rstrip("\f").split("\f")
    assert len(pages) >= 5
    assert [number for number, text in enumerate(pages, start=1) if "Not for clinical use" not in text] == []
    assert all(f"P-{number:03d}" in told.stdout for number in range(40))
    assert "Q-119" in told.stdout
