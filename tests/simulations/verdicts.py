"""How often words are wrong: verdicts on equal models, warnings about equal hospitals, gates on good models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri

from server.results.figures import Arm, arm_of, in_bins_of
from server.results.verdicts import decisions, gains, gate
from server.rounds.evaluation import Evaluated
from server.rounds.state import HospitalRound
from tasks.metrics.histogram import ScoreHistogram, score_histogram
from tasks.metrics.interval import Interval, scatter, widened
from tasks.metrics.ranking import hospital_alone
from tests.simulations.world import Release, World


@dataclass(frozen=True)
class Rate:
    """How often something was said, with its Monte-Carlo standard error."""

    rate: float
    error: float
    repetitions: int


def _rate(said: list[bool]) -> Rate:
    share = float(np.mean(said))
    return Rate(share, float(np.sqrt(share * (1 - share) / len(said))), len(said))


def verdicts_on_equal_models(patients: int, hospitals: int, world: World, release: Release, repetitions: int) -> Rate:
    """Two models of one AUC and correlation 0.9 on the same patients: the federated one as released, its logits
    squeezed; each hospital's own without noise and in 1024 bins. How often federation is said to help or harm."""
    rng, said = np.random.default_rng(4), []
    apart = float(ndtri(world.auc)) * np.sqrt(2)
    for _ in range(repetitions):
        mine, others = [], []
        for _ in range(hospitals):
            labels = (rng.random(patients) < world.prevalence).astype(np.int64)
            shared = rng.standard_normal(patients)
            both = [np.sqrt(0.9) * shared + np.sqrt(0.1) * rng.standard_normal(patients) for _ in range(2)]
            scores = [logit(world.prevalence) + apart * (x + apart * labels) - apart**2 / 2 for x in both]
            mine.append((np.asarray(expit(world.squeeze * scores[0])), labels))
            others.append((np.asarray(expit(scores[1])), labels))
        federated = {str(n): _told(h) for n, h in enumerate(release.of(rng, mine))}
        own = {str(n): _told(ScoreHistogram(score_histogram(*each, 1024))) for n, each in enumerate(others)}
        alike = in_bins_of(federated, own)
        found = gains(_aucs(federated), _aucs(alike))
        said.append(any(decision != "open" for decision in decisions(found).values()))
    return _rate(said)


def _told(histogram: ScoreHistogram) -> Evaluated:
    edges = [] if histogram.edges is None else [float(edge) for edge in histogram.edges]
    figures = HospitalRound(evaluation_noise=histogram.noise)
    return Evaluated(figures, {"histogram": histogram.cells}, edges=edges).with_auc()


class _OnlyAuc:
    """What ``gains`` reads of an arm."""

    def __init__(self, auc: Interval | None) -> None:
        self.auc = auc


def _aucs(evaluated: dict[str, Evaluated]) -> Arm:
    return Arm({h: _OnlyAuc(e.figures.auc_interval) for h, e in evaluated.items()}, None)  # type: ignore[misc, arg-type]


def verdicts_on_equal_procedures(
    hospitals: int, sampling: float, training: float, repeats: int, repetitions: int
) -> Rate:
    """Two procedures whose models differ by chance alone: how often one is said to help or harm at any hospital, when
    the scatter of ``repeats`` trainings of each is in the interval (1: it was not measured)."""
    rng, said = np.random.default_rng(5), []
    for _ in range(repetitions):
        found = {}
        for n in range(hospitals):
            value = rng.normal(0, np.hypot(sampling, training * np.sqrt(2)))
            plain = Interval(value, value - 1.96 * sampling, value + 1.96 * sampling)
            again = [scatter(list(rng.normal(0, training, repeats - 1))) for _ in range(2)]
            found[str(n)] = widened(plain, float(np.hypot(*(each or 0.0 for each in again))))
        said.append(any(decision != "open" for decision in decisions(found).values()))
    return _rate(said)


def hospitals_that_seem_to_predict(
    hospitals: int, patients: int, prevalence: float, noise: float, repetitions: int, differ: float = 0.0
) -> Rate:
    """How often the warning comes; ``differ``: by how much prevalences lie above and below, by turns."""
    rng, said = np.random.default_rng(6), []
    shares = prevalence + differ * np.where(np.arange(hospitals) % 2, 1, -1)
    for _ in range(repetitions):
        positives = rng.binomial(patients, shares)
        cells = [np.pad([[patients - p], [p]], ((0, 0), (0, 15))) + rng.normal(0, noise, (2, 16)) for p in positives]
        found = hospital_alone([ScoreHistogram(each, noise) for each in cells])
        said.append(found is not None and found.p < 0.05 and found.auc >= 0.6)
    return _rate(said)


def gates_passed(patients: int, hospitals: int, auc: float, wanted: dict[str, float], repetitions: int) -> Rate:
    """How often a model of this AUC at equal hospitals, a third of whose patients are positive, is accepted."""
    rng, said = np.random.default_rng(7), []
    for _ in range(repetitions):
        drawn = [World(1 / 3, auc).draw(rng, patients) for _ in range(hospitals)]
        histograms = Release(256).of(rng, drawn)
        arm = arm_of({str(n): each for n, each in enumerate(histograms)})
        said.append(gate(arm, wanted) == [])
    return _rate(said)
