"""Renews the README's pictures from a demo's output, with Chromium.

    python -m tests.documentation.pictures STUDY TRIAGE MLFLOW

``STUDY`` is the study's folder; ``TRIAGE`` the one that ``consilium-site predict --out`` wrote; ``MLFLOW`` the address
of the study's charts as it has printed it, with ``mlflow server`` running.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.documentation.gather import ROOT

REPORT, MLFLOW, TRIAGE = "server/pages/report.png", "server/tracking/mlflow.png", "client/prediction/triage.png"
MOST_BYTES = 150_000
_COLOURS = 64


def main(study: Path, triage: Path, mlflow: str) -> None:
    """Take all three."""
    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1000, "height": 1200})
        context.set_default_timeout(300_000)
        for key, value in (("panelOpen", "false"), ("fab.autoOpenedOnFirstLoad", "true")):  # it would cover a third
            context.add_init_script(f"localStorage.setItem('mlflow.assistant.{key}_v1', '{value}')")
        page = context.new_page()
        page.goto((study / "report.html").resolve().as_uri())
        _keep(page, REPORT, 1200)
        page.goto((triage / "triage.html").resolve().as_uri())
        _keep(page, TRIAGE, 900)
        page.set_viewport_size({"width": 1300, "height": 900})
        page.goto(mlflow)
        page.locator("svg.main-svg").first.wait_for()
        page.wait_for_timeout(5_000)  # its charts are drawn one after the other
        _keep(page, MLFLOW, 720)
        browser.close()


def _keep(page: Page, name: str, height: int) -> None:
    """The upper part of what the page shows, with a palette instead of all colours."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = shot.crop((0, 0, shot.width, min(height, shot.height))).quantize(_COLOURS, dither=Image.Dither.NONE)
    small.save(ROOT / name, optimize=True)
    size = (ROOT / name).stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{name} has {size} bytes, at most {MOST_BYTES} are meant")
    print(f"wrote {name}, {size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
