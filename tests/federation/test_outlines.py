"""A network that outlines, through the real hospitals: how well it does leaves once, is paid for, and is reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.cohort import cache, catalog
from client.ledger.accounting import epsilon_of
from client.site import load as load_site
from server.__main__ import client_app
from tasks import task as tasks
from tasks.protocol import wire
from tasks.protocol.wire import DICE, DISTANCE, EvaluateOrder, EvaluateReport
from tests.federation.embedded import Ended, entries, play

HOSPITALS = ("alder", "birch")
TWO = ("~federation.hospitals.cedar", "evaluation.arms=[]", "evaluation.epsilon=20", "evaluation.bins=4",
       "evaluation.every=1", "evaluation.edges=equal")  # fmt: skip
TASK = tasks.get("breast_ultrasound")


@dataclass(frozen=True)
class Told:
    """A study, and of each of its evaluations the structures that were asked for and the histograms that left."""

    ended: Ended
    asked: list[tuple[str, ...]]
    left: list[tuple[int, tuple[str, ...]]]


def _played(ground: Path, model: str) -> Told:
    asked: list[tuple[str, ...]] = []
    left: list[tuple[int, tuple[str, ...]]] = []

    def noting_app() -> ClientApp:
        inner, app = client_app(), ClientApp()

        def evaluate(message: Message, context: Context) -> Message:
            asked.append(tuple(wire.decode(message.content, EvaluateOrder).study.evaluation.structures))
            reply = inner(message, context)
            report = wire.decode(reply.content, EvaluateReport)
            left.append((report.round, tuple(sorted(report.arrays))))
            return reply

        app.train()(lambda message, context: inner(message, context))
        app.evaluate()(evaluate)
        return app

    return Told(play(ground, f"two-{model}", f"model={model}", *TWO, load_app=noting_app), asked, left)


@pytest.fixture(scope="module")
def outlined(ground: Path) -> Told:
    return _played(ground, "scatter_outline")


@pytest.fixture(scope="module")
def answered(ground: Path) -> Told:
    """The same patients, whose outlines nobody asks for: the network answers the question and no more."""
    return _played(ground, "scatter_linear")


def test_outlines_leave_once_and_reach_the_results(outlined: Told) -> None:
    last = tuple(sorted(("histogram", f"{DICE}lesion", f"{DISTANCE}lesion")))
    assert sorted(outlined.left) == [(1, ("histogram",))] * 2 + [(2, last)] * 2
    assert set(outlined.asked) == {("lesion",)}
    assert outlined.ended.results.dropped == {}
    told = outlined.ended.numbers()["outlines"]
    assert told.keys() == {"lesion"}
    assert told["lesion"].keys() == {"federated"}
    figures = told["lesion"]["federated"]
    assert figures["hospitals"].keys() == set(HOSPITALS)
    for key in ("dice", "distance"):
        mean = figures["everybody"][key]
        assert 0 <= mean["low"] <= mean["value"] <= mean["high"] <= 1
        assert len(figures["everybody"][f"{key}_quartiles"]) == 3
    assert figures["everybody"]["with_structure"] == pytest.approx(
        sum(figures["hospitals"][hospital]["with_structure"] for hospital in HOSPITALS)
    )


@pytest.mark.parametrize("hospital", HOSPITALS)
def test_they_are_of_the_hospitals_validation_patients(outlined: Told, hospital: str) -> None:
    """As many as have a lesion outlined, but for the noise: six of its deviations are seen once in 500 million runs."""
    site = load_site(outlined.ended.folder / "sites" / f"{hospital}.yaml")
    with_lesion: set[str] = set()
    for entry in catalog.sides(site, TASK)["validation"]:
        masks = cache.load_masks(entry.example)
        if masks is not None and masks.any():
            with_lesion.add(entry.patient)
    told = outlined.ended.numbers()["outlines"]["lesion"]["federated"]["hospitals"][hospital]
    assert with_lesion
    assert told["size_noise"] > 0
    assert abs(told["with_structure"] - len(with_lesion)) < 6 * told["size_noise"]


def test_the_report_shows_them(outlined: Told) -> None:
    folder, figures = outlined.ended.folder, outlined.ended.results.outlines["lesion"]["federated"].everybody
    assert figures.dice is not None
    assert figures.distance is not None
    assert figures.dice_quartiles is not None
    page = " ".join((folder / "report.html").read_text("utf-8").split())
    section = page[page.index("<h2>Outlines</h2>") : page.index("<h2>Subgroups</h2>")]
    assert [name for name in HOSPITALS if f"<tr><td>{name}</td>" not in section] == []
    everybody = section[section.index("<td>all patients</td>") :]
    assert " · ".join(f"{quartile:.2f}" for quartile in figures.dice_quartiles) in everybody
    distance = f"{100 * figures.distance.value:.1f} ("
    assert distance in everybody
    card = (folder / "model-card.md").read_text("utf-8")
    assert f"- outline of lesion: mean Dice {figures.dice.value:.2f} (" in card
    assert f"95 % Hausdorff distance {distance}" in card
    assert (folder / "figures" / "outlines-lesion.svg").is_file()


@pytest.mark.parametrize("hospital", HOSPITALS)
def test_the_ledger_holds_what_their_histograms_cost(outlined: Told, answered: Told, hospital: str) -> None:
    """Two of each structure beside the one of scores, planned together before the first: so each has more noise."""
    noise = {}
    for told, last in ((outlined, 3), (answered, 1)):
        found = entries(told.ended.folder, hospital)
        scored = [entry.mechanism for entry in found if entry.use.cohort == "validation"]
        assert [mechanism.count for mechanism in scored] == [1, last]
        (noise[last],) = {mechanism.noise_multiplier for mechanism in scored}
        assert told.ended.results.validation_epsilon[hospital] == pytest.approx(epsilon_of(scored, 1e-4))
        assert 15 < epsilon_of(scored, 1e-4) <= 20
        trained = [entry.mechanism for entry in found if entry.use.cohort == "train"]
        assert 7 < epsilon_of(trained, 1e-4) <= 8
        assert told.ended.results.epsilon[hospital] == pytest.approx(epsilon_of(trained, 1e-4))
        assert all(entry.committed for entry in found)
    assert noise[3] > noise[1] > 0


def test_structures_never_appear_for_a_network_that_does_not_outline(answered: Told) -> None:
    ended = answered.ended
    assert answered.left == [(1, ("histogram",))] * 2 + [(2, ("histogram",))] * 2
    assert set(answered.asked) == {()}
    assert ended.results.dropped == {}
    assert ended.numbers()["outlines"] == {}
    for name in ("report.html", "model-card.md"):
        text = (ended.folder / name).read_text("utf-8")
        assert "outlines" not in text.replace("scatter_outline", ""), name
        assert "Hausdorff" not in text, name
    assert not list((ended.folder / "figures").glob("outlines-*"))
    assert not any(name.startswith("structures") for name in ended.state().weights)
