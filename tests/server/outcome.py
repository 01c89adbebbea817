"""A study's outcome made of histograms that are known, without training anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf import load
from server.pages.report import Story
from server.results.results import Results, results
from server.rounds.evaluation import Evaluated, pooled_auc, scores_of
from server.rounds.state import HospitalRound, RoundRecord, StudyState
from server.study.baselines import Arms
from server.study.cross_site_evaluation import CrossSiteEvaluation
from tasks.answers import Answer
from tasks.machine.language import Language
from tasks.metrics.histogram import score_histogram
from tasks.metrics.interval import Interval

NOTES = ["Nobody is real."]


def evaluated(
    seed: int,
    distance: float,
    sizes: tuple[int, int] = (80, 60),
    noise: float = 0.0,
    *,
    moved: float = 0.0,
    bins: int = 16,
    **more: NDArray[np.float64],
) -> Evaluated:
    """What a hospital says whose classes are so many standard deviations apart; ``moved``: all scores' logits."""
    rng = np.random.default_rng(seed)
    labels = np.r_[np.zeros(sizes[0], int), np.ones(sizes[1], int)]
    scores = 1 / (1 + np.exp(-rng.normal(size=len(labels)) - distance * (labels - 0.5) - moved))
    counts = score_histogram(scores, labels, bins)
    counts = counts + rng.normal(0, noise, counts.shape) if noise else counts
    figures = HospitalRound(7.9, 3.9 if noise else None, noise, bytes_down=2_000_000, bytes_up=1_000_000)
    return Evaluated(figures, {"histogram": counts, **more}).with_auc()


def outcome(
    federated: dict[str, Evaluated],
    arms: Arms | None = None,
    gates: dict[str, float | None] | None = None,
    cross_site: CrossSiteEvaluation | None = None,
    questions: Mapping[str, Answer] | None = None,
    language: Language = "en",
) -> tuple[Results, StudyState]:
    """Results of a study of two rounds that ended with these evaluations."""
    hospitals = {name: each.figures for name, each in federated.items()}
    rounds = [RoundRecord(n, 0.5, 1.0, hospitals, {}, list(hospitals), pooled_auc(federated)) for n in (1, 2)]
    state = StudyState({}, rounds, scores=scores_of(federated))
    return results("demo-1", state, arms or Arms(), NOTES, gates, cross_site, questions, language), state


def story(
    federated: dict[str, Evaluated] | None = None,
    arms: Arms | None = None,
    language: Language = "en",
    **changes: Any,
) -> Story:
    """What the report of such a study tells: groups, arms, a gate, privacy."""
    sex = np.full((3, 2, 16), 3.0)
    default = {"ash": evaluated(1, 2.0, (300, 200), 1.5, sex=sex), "elm": evaluated(2, 1.5, (200, 100), 1.5, sex=sex)}
    shuffled = [{"ash": evaluated(seed, 0.0), "elm": evaluated(seed + 9, 0.0)} for seed in (5, 6, 7)]
    others = Arms({"ash": evaluated(3, 1.0), "elm": evaluated(4, 1.0)}, {}, shuffled)
    of_ash, of_elm = evaluated(8, 2.0, (300, 200), 1.5), evaluated(9, 1.2, (200, 100), 1.5)
    matrix = {"ash": {"ash": of_ash, "elm": of_elm}, "elm": {"ash": of_elm, "elm": of_ash}}
    cross_site = CrossSiteEvaluation(
        {"ash": Interval(0.09, 0.03, 0.15)}, matrix if arms is None else {}, {"ash": 3.99, "elm": 3.99}
    )
    found, state = outcome(
        federated or default, others if arms is None else arms, {"auc": 0.6}, cross_site, language=language
    )
    config = load.to_plain(load.load(["experiment=demo", "data_root=/secret/place"]))
    made = Story(found, state.rounds, config, ["experiment=demo", "data_root=/secret/place"], {"ash": (99, 100)})
    return replace(made, **changes)
