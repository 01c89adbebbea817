"""The report and the card: all of it there, nothing fetched, nobody named; what it looks like is seen in tests/e2e."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from server.pages import charts
from server.pages.model_card import card, sections
from server.pages.provenance import code_digest, command
from server.pages.report import about, page, pictures
from server.pages.svg import ticks
from server.results.secondary_endpoints import OutlineArm, OutlineFigures
from server.rounds.evaluation import Evaluated
from server.rounds.state import HospitalRound
from server.study.baselines import Arms
from tasks.machine.language import Language
from tasks.metrics.interval import Interval
from tests.server.outcome import evaluated, story

BAD = "<img src=x onerror=alert(1)>"


class Loads(HTMLParser):
    """Collects whatever a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.found += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]


def test_it_is_one_file_that_fetches_and_runs_nothing() -> None:
    told = page(story())
    reader = Loads()
    reader.feed(told)
    outside = [each for each in reader.found if not each.startswith("a href=#how-")]
    assert outside == [], "links lead to this page's own explanations"
    assert not {"script", "link", "iframe", "img", "object"} & set(reader.tags)
    assert reader.tags.count("svg") == 8
    assert "@import" not in told
    assert "url(" not in told


def test_it_says_what_a_reader_needs() -> None:
    told = page(story())
    needed = [
        "Research only. Not for clinical use.", "Does this breast ultrasound image show a malignant lesion?",
        "Nobody is real.", "Mean AUC over 2 hospitals", "No evidence either way", "thresholds that were set in advance",
        "ash", "elm", "epsilon 8", "99 % of images", "consilium experiment=demo data_root=FOLDER", code_digest(),
        "Subgroups", "learning_rate: 8.0", "The mean of 3 models trained on permuted labels",
        "Federation helps ash: +0.090", "patient by patient: ash.", "too wide: elm.", "Every model at every hospital",
    ]  # fmt: skip
    assert [words for words in needed if words not in told] == []
    assert "/secret" not in told


def test_structures_that_exclude_each_other_are_named_beside_their_dice() -> None:
    told, nothing = story(), None
    figures = OutlineFigures(9.0, 0.0, 0.0, Interval(0.8, 0.7, 0.9), nothing, nothing, nothing, nothing)
    arms = {"federated": OutlineArm({"ash": figures}, figures)}
    told = replace(
        told,
        config={**told.config, "task": {"name": "left_heart"}},
        results=replace(told.results, outlines={"left_atrium": arms, "within_epicardium": arms}),
    )
    sentence = "left ventricle, myocardium and left atrium exclude each other"
    assert sentence in page(told).lower()
    assert sentence in card(told, "0" * 64)
    free = replace(told, config={**told.config, "task": {"name": "cardiac_ultrasound"}})
    assert "exclude each other" not in page(free) + card(free, "0" * 64)


def test_warnings_stand_before_every_figure() -> None:
    told = page(story({"ash": evaluated(1, 2.0), "oak": evaluated(2, 2.0, (60, 0))}, Arms()))
    assert told.index("oak has validation patients of one class only") < told.index("<svg")


def test_what_comes_from_elsewhere_is_text_and_no_markup() -> None:
    told = story()
    found = replace(told.results, notes=[BAD], warnings=[BAD], dropped={BAD: BAD})
    assert BAD not in page(replace(told, results=found))
    assert "&lt;img" in page(replace(told, results=found))


@pytest.mark.parametrize("oak", [evaluated(2, 2.0, (60, 0)), Evaluated(HospitalRound(7.9), problem="no answer")])
def test_a_study_without_figures_has_a_report_too(oak: Evaluated) -> None:
    told = page(story({"oak": oak}, Arms()))
    assert "Read this first" in told
    assert card(story({"oak": oak}, Arms()), "0" * 64)


def test_the_charts_are_well_formed_and_describe_themselves() -> None:
    drawn = pictures(story())
    assert drawn.keys() == {
        *("comparison", "gains", "matrix", "reliability", "roc", "subgroups", "convergence", "privacy")
    }
    for chart in drawn.values():
        root = ElementTree.fromstring(chart.svg())
        assert root.attrib["role"] == "img"
        title, description = root[0].text, root[1].text
        assert title
        assert description
        numbers = re.findall(r"[-\d.]+", " ".join(" ".join(node.attrib.values()) for node in root.iter()))
        assert all(np.isfinite(float(n)) for n in numbers if re.fullmatch(r"-?\d+(\.\d+)?", n))


def _channel(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    return float(np.dot([0.2126, 0.7152, 0.0722], [_channel(part) for part in bytes.fromhex(colour[1:])]))


@pytest.mark.parametrize("auc", np.linspace(0.3, 1, 29).tolist())
def test_every_number_in_the_matrix_can_be_read_on_its_colour(auc: float) -> None:
    """Contrast of 4.5 to 1 at least, WCAG 2.1 criterion 1.4.3."""
    chart = charts.matrix({"ash": {"ash": Interval(auc, auc - 0.05, auc)}})
    assert chart is not None
    root = ElementTree.fromstring(chart.svg())
    told = [node for node in root.iter() if node.tag.endswith("text")]
    (number,) = [node for node in told if node.text == f"{auc:.2f}"]
    fill = next(node for node in root.iter() if node.tag.endswith("rect") and "stroke" in node.attrib).attrib["fill"]
    light, dark = sorted((_luminance(fill), _luminance(number.attrib["fill"])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_matrix_is_darker_where_the_auc_is_higher() -> None:
    cells = {f"h{n}": Interval(auc, auc - 0.1, 1.0) for n, auc in enumerate((0.5, 0.7, 0.9))}
    chart = charts.matrix({"ash": {**cells, "h3": None}})
    assert chart is not None
    root = ElementTree.fromstring(chart.svg())
    fills = [n.attrib["fill"] for n in root.iter() if n.tag.endswith("rect") and "stroke" in n.attrib]
    shades = [_luminance(fill) for fill in fills]
    assert shades[:3] == sorted(shades[:3], reverse=True)
    assert shades[3] == _luminance("#ffffff"), "no AUC"
    assert charts.matrix({}) is None


def test_a_gain_is_coloured_as_it_is_worded() -> None:
    found = story().results
    ends = {"ash": (0.05, 0.2), "elm": (-0.1, 0.1), "oak": (-0.2, -0.02)}
    gains = {hospital: Interval((low + high) / 2, low, high) for hospital, (low, high) in ends.items()}
    chart = charts.gains(replace(found, gains=gains, paired=["ash", "oak"]))
    assert chart is not None
    figures = [n for n in ElementTree.fromstring(chart.svg()).iter() if n.tag.endswith("text") and ")" in str(n.text)]
    assert [figure.attrib["fill"] for figure in figures] == ["#0072b2", "#666666", "#d55e00"]
    assert "−0.11 (−0.20 to −0.02)" in chart.svg()
    assert charts.gains(replace(found, gains={})) is None


@pytest.mark.parametrize(
    ("patients", "noise", "told"), [(3.0, 0.0, "fewer than 10"), (44.0, 0.0, "about 40"), (46, 3.0, "about 50 ± 6")]
)
def test_no_exact_small_number_is_told(patients: float, noise: float, told: str) -> None:
    assert about(patients, noise) == told


def test_every_section_of_the_card_says_something() -> None:
    told = sections(story(), "0" * 64)
    assert len(told) == 10
    assert all(len(text) > 40 for text in told.values())
    written = card(story(), "0" * 64)
    assert all(f"## {heading}\n\n{text.strip()}" in written for heading, text in told.items())
    assert written.count("Not for clinical use") == 1


def test_a_card_with_an_empty_section_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.pages.model_card._limits", lambda story: iter([" "]))
    with pytest.raises(ValueError, match="empty sections: Limits"):
        card(story(), "0" * 64)


def test_places_are_left_out_of_the_command() -> None:
    assert command(["experiment=demo", "output_dir=/x", "tracking.uri=http://u:p@h"]) == "consilium experiment=demo"


def test_the_code_digest_is_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.py").write_text("1")
    monkeypatch.setattr("server.pages.provenance._ROOT", tmp_path)
    first = code_digest.__wrapped__()
    (tmp_path / "conf" / "a.py").write_text("2")
    assert first != code_digest.__wrapped__()


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (0, 8.6), (0, 1), (0.3, 1.0), (0, 1e6), (0, 0.003)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 11
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


@pytest.mark.parametrize(
    ("language", "needed"),
    [
        ("de", "Zuerst lesen|Krankenhaus für Krankenhaus|Die Föderation nützt ash: +0,090 AUC|maligne Läsion"),
        ("zh", "请先阅读|各医院结果|联邦学习对 ash 有益：+0.090 AUC|恶性病灶"),
    ],
)
def test_the_report_speaks_the_language_of_its_study(language: Language, needed: str) -> None:
    told = story({"ash": evaluated(1, 2.0), "oak": evaluated(2, 2.0, (60, 0))}, Arms())
    english, whole = page(told), story()
    spoken_of = replace(told, results=replace(told.results, language=language))
    for text in (page(spoken_of), page(replace(whole, results=replace(whole.results, language=language)))):
        assert f'<html lang="{language}' in text
        headings = re.findall(r"<h2>(.*?)</h2>", text)
        assert len(headings) > 6
        assert [each for each in headings if f"<h2>{each}</h2>" in english] in ([], ["TRIPOD+AI"])
        heads = re.findall(r"<th>([^<]+)</th>", text)
        assert [
            each for each in heads if re.search(r"\b(the|of|hospital|epsilon, training|where|patients)\b", each)
        ] == []
    assert [each for each in needed.split("|")[1:] if each not in text] == []
    reader = Loads()
    reader.feed(text)
    assert not {"script", "link", "iframe", "img", "object"} & set(reader.tags)


@pytest.mark.parametrize("language", ["de", "zh"])
def test_what_comes_from_elsewhere_is_no_markup_in_any_language(language: Language) -> None:
    told = story()
    found = replace(
        told.results, notes=[BAD], study=BAD, language=language, translated={"warnings": [BAD], "gate": [BAD]}
    )
    text = page(replace(told, results=found))
    assert BAD not in text
    assert text.count("&lt;img") >= 4


def test_warnings_are_english_for_programs_and_in_the_reports_language_for_people() -> None:
    found = story({"oak": evaluated(2, 2.0, (60, 0))}, Arms(), language="de").results
    assert any("has validation patients of one class only" in text for text in found.warnings)
    assert any("hat Validierungspatienten nur einer Klasse" in text for text in found.translated["warnings"])
    text = page(story({"oak": evaluated(2, 2.0, (60, 0))}, Arms(), language="de"))
    assert "Zuerst lesen" in text
    assert "one class only" not in text
