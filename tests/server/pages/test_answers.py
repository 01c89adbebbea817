"""Classes, grades and measurements in the report, the model card and the comparison of studies."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from conf import load
from server.pages import comparison
from server.pages.answers import agreement, answered, confusion, sentences, shown
from server.pages.model_card import card
from server.pages.report import Story, page, pictures
from server.results.answers import ClassFigures, MeasureFigures
from server.rounds.evaluation import Evaluated
from tasks.metrics.classes import ClassTables
from tasks.metrics.interval import Interval
from tests.server.outcome import evaluated, outcome, story
from tests.server.results.test_answers import QUESTIONS, told


def asked(noise: float = 1.5, only: str = "") -> Story:
    """A study of the three questions, or of one as its own."""
    federated = {"ash": told(1, noise, 16), "elm": told(2, noise, 16)}
    questions = dict(QUESTIONS)
    if only:
        questions = {"question": QUESTIONS[only]}
        federated = {h: _renamed(each, only) for h, each in federated.items()}
    found, state = outcome(federated, questions=questions)
    return replace(story(), results=found, rounds=state.rounds)


def _renamed(each: Evaluated, only: str) -> Evaluated:
    counts = {"histogram": each.scores["histogram"], "told-question": each.scores[f"told-{only}"]}
    return replace(each, scores=counts)


def test_the_page_has_a_section_and_two_charts_for_each_question() -> None:
    told_page = page(asked())
    drawn = pictures(asked())
    assert {f"{kind}-{name}" for kind in ("answers", "told") for name in QUESTIONS} <= drawn.keys()
    needed = [
        "<h2>What it tells</h2>", "<h2>Arthrosis</h2>", "<h2>Ejection fraction</h2>", "Macro AUC", "Bland and Altman",
        "AUC against all others", "grade, all patients", "upper limit of agreement [%]", "how-classes", "how-measures",
    ]  # fmt: skip
    assert [words for words in needed if words not in told_page] == []


def test_a_study_of_yes_or_no_explains_nothing_that_it_does_not_show() -> None:
    plain = page(story())
    assert not [name for name in ("how-classes", "how-grades", "how-measures", "What it tells") if name in plain]


def test_where_a_value_is_measured_nothing_calls_its_score_a_probability() -> None:
    measured = asked(only="ejection_fraction")
    assert "Do scores mean what they say?" in page(asked())
    assert "Do scores mean what they say?" not in page(measured)
    assert "reliability" not in pictures(measured)
    written = card(measured, "0" * 64)
    assert "it is no probability" in written
    assert "| all patients | " in written
    assert written.split("| all patients | ")[1].split("\n")[0].endswith("– | – | – | – |")


def test_charts_say_in_words_what_they_show_and_are_whole() -> None:
    for name, chart in pictures(asked()).items():
        tree = ElementTree.fromstring(chart.svg())
        assert tree.find("{*}desc") is not None
        if name.startswith("told-"):
            assert chart.description.count(" to ") >= 3


def test_as_many_classes_as_there_may_be_fit() -> None:
    names = [f"class_{n}_with_a_long_name" for n in range(20)]
    tables = ClassTables(np.full((20, 20), 3.0), np.full((20, 2, 8), 2.0))
    figures = ClassFigures(names, tables.sizes, 0.0, None, None, None, [], [], tables.shares())
    drawn = ElementTree.fromstring(confusion(figures).svg())
    assert len(drawn.findall("{*}rect")) == 400
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    for box in drawn.findall("{*}rect"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height


def test_differences_are_drawn_where_noise_leaves_no_point_and_where_there_is_nobody() -> None:
    nothing = MeasureFigures(
        "mm", 0, 0, None, None, None, None, None, None, [0.0] * 8, [float(n - 4) for n in range(9)]
    )
    hidden = replace(nothing, bias=Interval(0.1, -3, 3, firm=False), differences=[-5.0, 2.0] * 4, size_noise=9.0)
    for figures in (nothing, hidden):
        ElementTree.fromstring(agreement(figures).svg())
    assert "no point" in agreement(hidden).description


def test_the_card_and_the_summary_have_every_figure_with_its_unit() -> None:
    lines = list(sentences(asked().results))
    assert [line.split(",")[0] for line in lines] == ["What it tells", "Arthrosis", "Ejection fraction"]
    assert lines[2].count(") %") == 4
    assert " grades;" in lines[1]
    written = card(asked(), "0" * 64)
    assert "- Arthrosis, all patients: weighted kappa 0." in written


def test_numbers_of_patients_are_rounded_in_the_table_of_classes() -> None:
    small = asked(0.0)
    assert [each[0] for each in answered(small.results)["question"].classes] == ["normal", "benign", "malignant"]
    assert "about " in page(small)


def test_figures_have_as_many_decimals_as_their_interval_needs() -> None:
    assert shown(Interval(8.276, 5.8, 12.41), "mean_error") == "8.3 (5.8 to 12.4)"
    assert shown(Interval(-0.5, -0.61, 0.1, firm=False), "kappa") == "−0.61 to 0.10, no point"
    assert shown(None, "kappa") == "–"


def test_a_hospital_that_sends_no_such_table_is_left_out() -> None:
    found, _ = outcome({"ash": told(1), "oak": evaluated(4, 1.0, bins=1024)}, questions=QUESTIONS)
    assert found.answers["question"]["federated"].hospitals.keys() == {"ash"}


def test_studies_side_by_side_have_the_figures_of_their_answers(tmp_path: Path) -> None:
    for name, noise in (("exact", 0.0), ("private", 1.5)):
        (tmp_path / name).mkdir()
        config = load.to_plain(load.load(["experiment=demo"]))
        (tmp_path / name / "study.json").write_text(json.dumps({"study": name, "config": config}))
        (tmp_path / name / "results.json").write_text(json.dumps(asdict(asked(noise).results)))
    studies = [comparison.read(tmp_path / name) for name in ("exact", "private")]
    heads = [column.header for column in comparison.table(studies, 1000).columns]
    assert {"macro AUC", "arthrosis: weighted kappa", "ejection fraction: bias [%]"} <= set(heads)
    told_page = comparison.page(studies)
    assert "arthrosis: weighted kappa" in told_page
    assert studies[0].told["macro AUC"] in told_page
