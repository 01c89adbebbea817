"""The reading room's list: order, warnings, and that it fetches nothing and runs nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.cohort.picture import png
from client.prediction import triage
from client.prediction.local_image import LeftOut, LocalImage
from client.prediction.model import CheckedModel
from client.prediction.predict import Predictions, ScoredImage, ScoredPatient
from tasks import task as tasks
from tasks.metrics.recalibration import Recalibration
from tests.client.prediction.handed_over import model, weights

AT = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
EVIL = "<script>alert('x')</script>&\"'"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> CheckedModel:
    return model(tmp_path_factory.mktemp("model"))


def _patient(name: str, *probabilities: float, **changes: Any) -> ScoredPatient:
    seen = png(np.random.default_rng(0).random((1, 8, 8), np.float32))
    told: dict[str, Any] = {"accession": "A1", "study_date": "20261124", "path": Path("x.dcm"), "frame": 0, "frames": 1}
    image = LocalImage(name, "2.25.1", "2.25.2", "2.25.2", **(told | changes))
    return ScoredPatient(name, tuple(ScoredImage(image, p, seen) for p in probabilities))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def _tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.tags


def test_it_fetches_nothing_and_runs_nothing(opened: CheckedModel) -> None:
    left = [LeftOut(EVIL, Path(EVIL), EVIL)]
    found = Predictions([_patient(EVIL, 0.9, accession=EVIL, study_date=EVIL)], left)
    page = triage.page(EVIL, opened, found, AT)
    tags = _tags(page)
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")]
        fetched = [attributes[name] or "" for name in ("src", "href") if name in attributes]
        assert all(address.startswith("data:image/png;") for address in fetched)
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_the_highest_is_first_and_the_threshold_is_drawn(opened: CheckedModel) -> None:
    found = Predictions([_patient("HIGH", 0.9, 0.7), _patient("LOW", 0.1)], [])
    page = triage.page("alder", opened, found, AT)
    assert page.index("HIGH") < page.index("LOW")
    assert "80.0 %" in page
    assert re.search(r"80\.0 %.*?at or above the threshold.*?10\.0 %.*?below the threshold", page, re.S)
    assert page.count("left:calc(43.00% - 1px)") == 2
    assert len([1 for tag, _ in _tags(page) if tag == "img"]) == 3


def test_probabilities_are_calibrated_and_the_order_is_that_of_scores(tmp_path: Path) -> None:
    """A patient with two images: the mean score is calibrated, and not the mean of calibrated images."""
    line = Recalibration(-1.0, 2.0)
    opened = model(tmp_path, calibration=line, prevalence=0.4)
    page = triage.page("alder", opened, Predictions([_patient("HIGH", 0.9, 0.6), _patient("LOW", 0.42)], []), AT)
    both, low, threshold = (100 * float(line.probability(score)) for score in (0.75, 0.42, 0.43))
    assert re.search(rf"{both:.1f} %.*?at or above the threshold.*?{low:.1f} %.*?below the threshold", page, re.S)
    assert page.count(f"left:calc({threshold:.2f}% - 1px)") == 2
    assert f"{100 * float(line.probability(0.9)):.1f} %" in page
    assert "calibrated" in page


def test_it_is_marked_at_the_top_and_on_every_printed_page(opened: CheckedModel) -> None:
    page = triage.page("alder", opened, Predictions([_patient("A", 0.5)], []), AT)
    body = page[page.index("</style>") :]
    first = re.sub(r"<[^>]*>", " ", body).split()
    assert first[:4] == ["Not", "for", "clinical", "use"]
    tags = [tag for tag, _ in _tags(body)]
    assert tags[:4] == ["table", "thead", "tr", "th"], "a browser repeats the head of a table on every page"
    assert page.count("<table role=presentation class=pages>") == 1


def test_warnings_of_the_contract_and_of_training_are_told(opened: CheckedModel) -> None:
    found = Predictions([_patient("A", 0.5, warned=("matrix",), trained=True), _patient("B", 0.4)], [])
    page = triage.page("alder", opened, found, AT)
    assert page.count("Contract warnings: matrix") == 1
    assert page.count("Training side of this hospital") == 1
    assert "Send images at the scanner" in page
    assert "1 of 2 patients are on the training side" in page


def test_without_a_threshold_no_side_is_told(tmp_path: Path) -> None:
    page = triage.page("alder", model(tmp_path, threshold=None), Predictions([_patient("A", 0.5)], []), AT)
    assert "the threshold" not in page
    assert "no operating threshold" in page


def test_a_long_list_says_where_the_rest_is(opened: CheckedModel) -> None:
    found = Predictions([_patient(f"P{n}", *[0.5] * 6) for n in range(501)], [LeftOut("A", Path("x"), "organ")] * 502)
    page = triage.page("alder", opened, found, AT)
    assert "<p>1 more in scores.csv.</p>" in page
    assert "<p>2 more in scores.csv.</p>" in page
    assert page.count("and 2 more</span>") == 500


def test_beside_what_is_told_stands_of_what_the_probability_is(tmp_path: Path) -> None:
    three, found = tasks.get("breast_ultrasound_three"), Predictions([_patient("A", 0.3)], [])
    page = triage.page("alder", model(tmp_path, asked=three, arrays=weights(three)), found, AT)
    assert "<span class='soft side'>malignant, below the threshold</span>" in page
