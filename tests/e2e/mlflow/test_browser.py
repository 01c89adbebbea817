"""What a person sees: the report at two widths and on paper, and MLflow's pages behind the links that a study prints.

Screenshots are written to the folder of ``CONSILIUM_SCREENSHOTS``, to be looked at.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright

from server.pages import report as pages
from tests.e2e.mlflow.conftest import PASSWORD, USER, Tracked
from tests.federation.embedded import HOSPITALS
from tests.server.outcome import story

PATIENCE_MS = 60_000


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as library:
        opened = library.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go."""
    folder = Path(os.environ.get("CONSILIUM_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that notes whatever it asks another machine for."""
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    context = browser.new_context(
        viewport={"width": 1400, "height": 1000}, extra_http_headers={"Authorization": f"Basic {secret}"}
    )
    for key, value in (("panelOpen", "false"), ("fab.autoOpenedOnFirstLoad", "true")):  # it would cover a third
        context.add_init_script(f"localStorage.setItem('mlflow.assistant.{key}_v1', '{value}')")
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    yield opened
    context.close()
    foreign = [url for url in asked if not re.match(r"(http://127\.0\.0\.1:|file:|data:|blob:|about:)", url)]
    assert foreign == []


def link(tracked: Tracked, what: str) -> str:
    """A link as the study printed it."""
    return next(line.split()[1] for line in tracked.study.shown.splitlines() if line.startswith(f"{what}: "))


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report that has something of everything."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(pages.page(story()), "utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [1280, 400])
def test_the_report_fits_the_screen_and_draws_every_chart(
    report: str, browser: Browser, pictures: Path, width: int
) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report)
    opened.screenshot(path=pictures / f"report-{width}.png", full_page=True)
    assert asked == [report]
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    charts = opened.locator("figure svg")
    assert charts.count() == 7
    for n in range(charts.count()):
        box = charts.nth(n).bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 60
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    texts = opened.locator("figure svg text")
    for n in range(texts.count()):
        inside = texts.nth(n).evaluate(
            "t => { const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();"
            " return a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1 }"
        )
        assert inside, texts.nth(n).text_content()
    opened.close()


def test_the_report_prints(report: str, browser: Browser, pictures: Path) -> None:
    opened = browser.new_page()
    opened.goto(report)
    printed = opened.pdf(path=pictures / "report.pdf", format="A4")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 6
    opened.close()


def test_the_charts_link_opens_the_charts(tracked: Tracked, page: Page, pictures: Path) -> None:
    page.goto(link(tracked, "charts"))
    for section in ("global", "round", "privacy"):
        expect(page.get_by_text(section, exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text(tracked.study.folder.name).first).to_be_visible(timeout=PATIENCE_MS)
    drawn = page.locator(".js-plotly-plot .point, .js-plotly-plot path.js-line")
    expect(drawn.first).to_be_visible(timeout=PATIENCE_MS)
    page.screenshot(path=pictures / "mlflow-charts.png")


def test_the_report_link_opens_the_report(tracked: Tracked, page: Page, pictures: Path) -> None:
    page.goto(link(tracked, "report"))
    expect(page.get_by_text("model-card.md").first).to_be_visible(timeout=PATIENCE_MS)
    inner = page.frame_locator("iframe").first
    expect(inner.get_by_text("Research only. Not for clinical use.").first).to_be_visible(timeout=PATIENCE_MS)
    page.screenshot(path=pictures / "mlflow-report.png")


def test_the_run_page_tells_of_the_study(tracked: Tracked, page: Page, pictures: Path) -> None:
    page.goto(link(tracked, "report").split("/artifacts/")[0] + "?workflowType=machine_learning")
    expect(page.get_by_text("phantoms", exact=False).first).to_be_visible(timeout=PATIENCE_MS)
    page.screenshot(path=pictures / "mlflow-run.png")


def test_the_model_page_has_the_signature_and_the_aliases(tracked: Tracked, page: Page, pictures: Path) -> None:
    page.goto(f"{tracked.server.uri}/#/models/breast_ultrasound?workflowType=machine_learning")
    expect(page.get_by_text("candidate", exact=False).first).to_be_visible(timeout=PATIENCE_MS)
    page.screenshot(path=pictures / "mlflow-models.png")
    page.goto(f"{tracked.server.uri}/#/models/breast_ultrasound/versions/2?workflowType=machine_learning")
    expect(page.get_by_text("Not for clinical use", exact=False).first).to_be_visible(timeout=PATIENCE_MS)
    page.screenshot(path=pictures / "mlflow-version.png")


def test_who_has_no_password_sees_nothing(tracked: Tracked) -> None:
    url = f"{tracked.server.uri}/api/2.0/mlflow/experiments/search"
    assert requests.post(url, json={"max_results": 1}, timeout=10).status_code == 401


def test_a_study_that_ran_while_the_server_was_down_is_there(tracked: Tracked) -> None:
    assert "does not answer" in tracked.late.shown
    assert not (tracked.late.folder / "tracking.json").exists()
    found = requests.post(
        f"{tracked.server.uri}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": ["1"], "filter": f"tags.fl_study = '{tracked.late.folder.name}'"},
        auth=(USER, PASSWORD),
        timeout=30,
    ).json()["runs"]
    assert {run["info"]["status"] for run in found} == {"FINISHED"}
    assert len(found) == 1 + len(HOSPITALS)
