"""What a survey shows: intervals that hold the truth as often as they say, of each hospital and of all together."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conf import load
from server.pages import survey as pages
from server.results import survey
from server.results.survey import EVERYBODY, SurveyResults, shown
from server.rounds.survey import Answers
from server.study.survey import is_survey, refuse_survey, survey_of
from tasks.protocol.survey import SurveyDocument
from tasks.protocol.wire import SurveyReport

DOCUMENT = survey_of(load.load(["experiment=demo", "ask.by=[label,label*sex,intensity]", "ask.intensities=4"]), "ask-1")
TRUTH = {
    "alder": {"label": [30, 12], "label.sex": [30, 0, 0, 12, 0, 0], "intensity": [20, 10, 8, 4]},
    "birch": {"label": [900, 0], "label.sex": [400, 400, 100, 0, 0, 0], "intensity": [300, 300, 200, 100]},
}
NOISE = {"alder": 2.0, "birch": 6.5}


def answers(rng: np.random.Generator, noise: dict[str, float] = NOISE) -> Answers:
    reports = {}
    for who, tables in TRUTH.items():
        arrays = {
            name: (np.array(cells, float) + noise[who] * rng.standard_normal(len(cells))).reshape(
                DOCUMENT.shapes()[name]
            )
            for name, cells in tables.items()
        }
        reports[who] = SurveyReport("ask-1", 0, 1.0, 1e-4, NOISE[who], "a" * 64, arrays)
    return Answers(reports, {"cedar": "refused with NOT_APPROVED"})


def found(seed: int = 1) -> SurveyResults:
    return survey.results(DOCUMENT, answers(np.random.default_rng(seed)), ["Nobody is real."])


def coverage(noise: dict[str, float]) -> dict[str, float]:
    """How often an interval holds the true count, of each hospital and of all."""
    rng, held = np.random.default_rng(5), {who: list[bool]() for who in (*TRUTH, EVERYBODY)}
    for _ in range(250):
        results = survey.results(DOCUMENT, answers(rng, noise), [])
        for table in results.tables:
            true = {who: tables[table.name] for who, tables in TRUTH.items()}
            true[EVERYBODY] = [sum(cells) for cells in zip(*true.values(), strict=True)]
            for who, cells in true.items():
                limits = [results.interval(who, count) for count in table.counts[who]]
                held[who] += [low <= cell <= high for cell, (low, high) in zip(cells, limits, strict=True)]
    return {who: float(np.mean(each)) for who, each in held.items()}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Also of cells with nobody in them."""
    assert all(0.92 <= share <= 0.99 for share in coverage(NOISE).values()), coverage(NOISE)


def test_noise_that_is_larger_than_was_said_would_be_seen() -> None:
    doubled = coverage({who: 2 * each for who, each in NOISE.items()})
    assert all(share < 0.92 for share in doubled.values())


def test_the_sum_has_the_noise_of_a_sum_and_nothing_is_cut_off_or_rounded() -> None:
    results = found()
    assert results.noise[EVERYBODY] == pytest.approx(np.hypot(*NOISE.values()))
    for table in results.tables:
        both = np.array([table.counts[who] for who in TRUTH])
        np.testing.assert_allclose(both.sum(axis=0), table.counts[EVERYBODY])
    values = np.concatenate([np.concatenate([*map(np.array, table.counts.values())]) for table in results.tables])
    assert (values < 0).any()
    assert not np.array_equal(values, np.round(values))


def test_a_display_stops_at_zero_and_says_so() -> None:
    results = found()
    assert shown(results, "alder", -0.3) == "0 (0 to 4)"
    assert shown(results, "alder", -9.0) == "-9 (0 to 0)"
    assert shown(results, "birch", 100.2) == "100 (87 to 113)"
    assert "from 0 on" in survey.CUT


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "survey.json"
    file.write_text(survey.text(found()))
    assert survey.read(file) == found()


def test_cells_have_the_names_of_the_tasks_classes_in_order() -> None:
    results = found()
    assert results.tables[0].cells == ["benign", "malignant"]
    assert results.tables[1].cells[3:] == ["malignant, female", "malignant, male", "malignant, not recorded"]
    assert results.tables[1].title == "finding and sex"
    console = Console(width=160, record=True, file=StringIO())
    for table in survey.shown_tables(results):
        console.print(table)
    text = console.export_text()
    assert "Patients by finding and sex" in text
    assert "Patients, each divided among cells by brightness of pixels" in text


def test_metrics_have_names_that_a_store_accepts_and_hold_every_limit() -> None:
    metrics = found().metrics()
    assert all(re.fullmatch(r"[\w\-. /]+", name, re.ASCII) for name in metrics)
    key = "ask/label/malignant/birch"
    assert metrics[f"{key}/low"] < metrics[key] < metrics[f"{key}/high"]
    assert len(metrics) == 3 * 3 * (2 + 6 + 4)


def test_the_page_loads_nothing_names_who_is_silent_and_can_be_read_aloud() -> None:
    page = pages.page(found())
    assert not re.search(r"(?:src|href)=|url\(|<script", page)
    assert "cedar is not in these figures: refused with NOT_APPROVED." in page
    assert page.count("<svg") == page.count("<desc>") == page.count('role="img"') == 3
    assert page.count('scope="row"') == (2 + 6 + 4) + 3
    assert "No small cell is left out" in page
    assert "of brightness each divides one count" in page


def test_a_survey_that_does_not_count_by_brightness_does_not_speak_of_it() -> None:
    results = found()
    results.tables[:] = [table for table in results.tables if table.name != "intensity"]
    assert "brightness" not in pages.page(results)


def test_names_from_elsewhere_are_text() -> None:
    results = found()
    results.silent["x<script>"] = "<b>"
    assert "<script" not in pages.page(results)


def test_hospitals_that_are_many_are_in_the_table_and_not_in_the_chart() -> None:
    many = Answers({f"h{n}": answers(np.random.default_rng(n)).reports["alder"] for n in range(12)})
    results = survey.results(DOCUMENT, many, [])
    drawn = pages.chart(results, results.tables[0]).svg()
    assert ">h3<" not in drawn
    assert EVERYBODY in drawn
    assert ">h3<" in pages.page(results)


def test_a_survey_is_what_the_configuration_asks() -> None:
    study = load.load(["experiment=demo"])
    assert not is_survey(study)
    refuse_survey(study)
    study = load.load(["experiment=demo", "ask.by=[age,spacing]", "ask.epsilon=0.5", "privacy.delta=1e-5"])
    assert is_survey(study)
    document = survey_of(study, "ask-2", "ada")
    assert isinstance(document, SurveyDocument)
    assert (document.tables, document.epsilon, document.delta) == ([["age"], ["spacing"]], 0.5, 1e-5)
    assert (document.vendors, document.thicknesses_mm, document.intensities) == ([], [], 0)
    assert document.asked_by == "ada"
    with pytest.raises(load.ConfigError, match="consilium ask"):
        refuse_survey(study)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ask.by=[glucose]"], "has no glucose; it has label, sex, age, vendor"),
        (["ask.by=[thickness]"], "reads pictures, which have no thickness; leave it out"),
        (["ask.by=[label]", "task.name=nonesuch"], "there is no task 'nonesuch'"),
        (["ask.by=[age*vendor,age*spacing,vendor*spacing]", f"ask.ages={[*range(1, 21)]}".replace(" ", ""),
          f"ask.vendors={[f'M{n}' for n in range(40)]}".replace(" ", "").replace("'", ""),
          f"ask.spacings_mm={[*range(1, 60)]}".replace(" ", "")], "ask for fewer bands"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_a_sentence(words: list[str], told: str) -> None:
    with pytest.raises(load.ConfigError) as caught:
        survey_of(load.load(["experiment=demo", *words]), "ask-1")
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
