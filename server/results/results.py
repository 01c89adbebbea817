"""What a study found, as numbers. ``console.py`` and ``server/pages/`` show them.

Tested in ``tests/server/results/test_verdicts.py``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from server.errors import CheckpointDamaged
from server.results.answers import AnswerArm, answers, told_figures
from server.results.average import worse_on_average
from server.results.collapsed import collapsed, collapsed_in_words
from server.results.figures import (
    Arm,
    Subgroup,
    Thresholds,
    arm_of,
    histograms_of,
    in_bins_of,
    knowing_the_hospital,
    subgroups,
)
from server.results.recalibrated import Recalibrated, recalibrated
from server.results.secondary_endpoints import ByArm, OutlineArm, findings, outlines
from server.results.verdicts import gains, gate, warnings
from server.rounds.evaluation import Evaluated, pooled_auc
from server.rounds.model_selection import fallen
from server.rounds.state import HospitalRound, RoundRecord, StudyState, how_often
from server.study.baselines import Arms
from server.study.cross_site_evaluation import CrossSiteEvaluation
from tasks.answers import Answer, Measure
from tasks.machine.language import Language, spoken
from tasks.metrics.interval import Interval, mean, repeated, scatter, widened
from tasks.metrics.ranking import HospitalAlone
from tasks.task import QUESTION


@dataclass(frozen=True)
class Results:
    """The outcome of a study.

    Attributes:
        arms: for each arm, ``federated`` among them, the figures of each hospital.
        epsilon: spent by each hospital's training patients; ``None`` without privacy.
        bytes_down, bytes_up: of all rounds, by hospital.
        seconds: of all federated rounds.
        dropped: how often each hospital was left out of a round, and why the last time.
        named: how often each hospital's update deserved a look though it counted, and why the last time.
        notes: what must be said beside the figures.
        details: for each arm all figures, of each hospital and of everybody.
        recalibrated: the federated model's scores as probabilities; ``None`` where it has seen one class only.
        by_hospital: how far the hospital by itself predicts the finding.
        gains: by hospital, AUC of the federated model less that of the hospital alone.
        spread: by arm and hospital, how far another training of the same study may lead, to 95 %: half the width of an
            interval, measured on ``evaluation.repeats``; empty where it was not measured. It is in ``gains``.
        paired: hospitals whose gain comes from both models on the same patients.
        matrix: AUC by the hospital that has trained a model and the one that has scored it; the federated one as well.
        shuffled: AUC on everybody's patients of models trained on labels at random, the mean of ``shufflings``.
        validation_epsilon: spent by each hospital's validation patients; ``None`` for exact scores.
        groups: figures of groups of patients, where the study asked for them.
        findings: for each secondary finding and arm all figures.
        outlines: for each structure and arm how it is outlined.
        answers: for each question with another answer than yes or no, and each arm, how well it is told.
        warnings: what a reader must know before any figure.
        gate: what keeps the model from being accepted; ``None`` where the study has set no thresholds.
        language: of the report.
        translated: ``warnings`` and ``gate`` in that language; empty where it is English.
    """

    study: str
    arms: dict[str, dict[str, HospitalRound]]
    epsilon: dict[str, float | None]
    bytes_down: dict[str, int]
    bytes_up: dict[str, int]
    seconds: float
    dropped: dict[str, str]
    notes: list[str]
    details: dict[str, Arm] = field(default_factory=dict)
    by_hospital: HospitalAlone | None = None
    gains: dict[str, Interval] = field(default_factory=dict)
    paired: list[str] = field(default_factory=list)
    matrix: dict[str, dict[str, Interval | None]] = field(default_factory=dict)
    shuffled: Interval | None = None
    shufflings: int = 0
    validation_epsilon: dict[str, float | None] = field(default_factory=dict)
    groups: list[Subgroup] = field(default_factory=list)
    findings: dict[str, dict[str, Arm]] = field(default_factory=dict)
    outlines: dict[str, dict[str, OutlineArm]] = field(default_factory=dict)
    answers: dict[str, dict[str, AnswerArm]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    gate: list[str] | None = None
    named: dict[str, str] = field(default_factory=dict)
    spread: dict[str, dict[str, float]] = field(default_factory=dict)
    recalibrated: Recalibrated | None = None
    language: Language = "en"
    translated: dict[str, list[str]] = field(default_factory=dict)

    def auc(self, arm: str, hospital: str) -> Interval | None:
        """An arm's AUC at a hospital; with the scatter of training, where it was measured."""
        figures = self.arms[arm].get(hospital)
        auc = None if figures is None else figures.auc_interval
        return None if auc is None else widened(auc, self.spread.get(arm, {}).get(hospital, 0.0))

    def mean_auc(self, arm: str) -> Interval | None:
        """Unweighted mean over the hospitals that have patients of both classes in every arm, so that arms compare.
        Noise decides nothing here: where it hides a class of one of them, the mean has no point."""
        known = [self.auc(arm, h) for h in self.comparable() if h in self.arms[arm]]
        return mean([interval for interval in known if interval is not None])

    def absent(self) -> list[str]:
        """Hospitals that are in no mean."""
        return [h for h in self.arms["federated"] if h not in self.comparable()]

    def comparable(self) -> list[str]:
        """Hospitals that have an AUC in every arm that means to predict."""
        arms = [hospitals for arm, hospitals in self.arms.items() if arm != "shuffled"]
        return [h for h in self.arms["federated"] if all(h in arm and arm[h].auc is not None for arm in arms)]

    def metrics(self) -> dict[str, float]:
        """The figures as MLflow metrics."""
        means = {f"result/{arm}_auc": self.mean_auc(arm) for arm in self.arms}
        metrics = {key: _point(value) for key, value in means.items()}
        for arm, hospitals in self.arms.items():
            metrics |= {f"result/{name}/{arm}_auc": figures.shown_auc for name, figures in hospitals.items()}
        for arm, figures_of_arm in self.details.items():
            for key in ("auc", "average_precision", "brier", "calibration_error"):
                interval: Interval | None = getattr(figures_of_arm.everybody, key)
                metrics[f"result/pooled_patients/{arm}_{key}"] = _point(interval)
        if self.recalibrated is not None and (judged := self.recalibrated.everybody) is not None:
            metrics["result/pooled_patients/calibrated_brier"] = _point(judged.brier)
            metrics["result/pooled_patients/calibrated_calibration_error"] = _point(judged.calibration_error)
        if self.shuffled is not None:
            metrics["result/pooled_patients/shuffled_auc"] = self.shuffled.value
        metrics |= self._secondary_metrics()
        for hospital, gain in self.gains.items():
            metrics |= {f"result/{hospital}/gain{end}": getattr(gain, what) for end, what in _ENDS.items()}
        if self.gate is not None:
            metrics["result/gate_passed"] = float(not self.gate)
        return {key: value for key, value in metrics.items() if value is not None}

    def _secondary_metrics(self) -> dict[str, float | None]:
        """Of secondary findings and structures, on everybody's patients."""
        metrics: dict[str, float | None] = {}
        for finding, arms in self.findings.items():
            for arm, figures_of_arm in arms.items():
                auc = figures_of_arm.everybody.auc
                metrics[f"result/pooled_patients/{arm}_auc_{finding}"] = _point(auc)
        for structure, outlined in self.outlines.items():
            for arm, figures in outlined.items():
                for key in ("dice", "distance", "wrongly_marked"):
                    interval: Interval | None = getattr(figures.everybody, key)
                    metrics[f"result/pooled_patients/{arm}_{key}_{structure}"] = _point(interval)
        for question, answered in self.answers.items():
            for arm, of_arm in answered.items():
                for key, interval in told_figures(of_arm.everybody).items():
                    metrics[f"result/pooled_patients/{arm}_{question}_{key}"] = _point(interval)
        return metrics


_RESULTS = TypeAdapter(Results)
_ENDS = {"": "value", "_low": "low", "_high": "high"}


def _point(interval: Interval | None) -> float | None:
    return interval.value if interval is not None and interval.firm else None


def results(
    name: str,
    state: StudyState,
    arms: Arms,
    notes: list[str],
    gates: Mapping[str, float | None] | None = None,
    cross_site: CrossSiteEvaluation | None = None,
    questions: Mapping[str, Answer] | None = None,
    language: Language = "en",
) -> Results:
    """Put together what the rounds and the other arms gave.

    Args:
        gates: the study's ``evaluation.gate``.
        questions: ``Task.questions``; none where all are yes-or-no questions.
        language: of the report.
    """
    questions = questions or {}
    cross_site = cross_site or CrossSiteEvaluation()
    federated = _federated(state)
    local, everywhere = in_bins_of(federated, arms.local), in_bins_of(federated, arms.pooled)
    by_arm = {"local": _figures(local), "federated": state.outcome.hospitals, "pooled": _figures(everywhere)}
    by_arm["shuffled"] = _repeated(arms.shuffled)
    evaluations = {"local": local, "federated": federated, "pooled": everywhere}
    spread, histograms = _spread(arms), histograms_of(federated)
    details, told = _details(evaluations), answers(evaluations, questions)
    epsilon, by_hospital = _epsilon(state.rounds), knowing_the_hospital(histograms)
    shuffled = repeated([auc for auc in map(_pooled, arms.shuffled) if auc is not None])
    measured = isinstance(questions.get(QUESTION), Measure)  # its score is no probability
    calibrated = None if measured else recalibrated(histograms)
    flat = [collapsed(each) for each in (arms.local, arms.pooled, federated)]
    gained = _gains(details, cross_site, spread, without=flat[0])
    made = Results(
        study=name,
        arms={arm: figures for arm, figures in by_arm.items() if figures},
        epsilon=epsilon,
        bytes_down=_total(state.rounds, list(epsilon), "bytes_down"),
        bytes_up=_total(state.rounds, list(epsilon), "bytes_up"),
        seconds=sum(record.seconds for record in state.rounds),
        dropped=how_often([record.dropped for record in state.rounds]),
        notes=notes,
        details=details,
        by_hospital=by_hospital,
        gains=gained,
        paired=sorted(cross_site.gains.keys() & gained.keys()),
        matrix=_matrix(cross_site, state),
        shuffled=shuffled,
        shufflings=len(arms.shuffled),
        validation_epsilon=_validation_epsilon(state.rounds) | cross_site.epsilon,
        groups=_groups(state, evaluations["federated"], details),
        findings=findings(evaluations),
        outlines=outlines(evaluations),
        answers=told,
        language=language,
        named=how_often([record.named for record in state.rounds]),
        spread=spread,
        recalibrated=calibrated,
    )
    return _in_words(made, state, flat, cross_site, gates or {}, probabilities=not measured)


def _gains(
    details: Mapping[str, Arm],
    cross_site: CrossSiteEvaluation,
    spread: Mapping[str, Mapping[str, float]],
    without: Collection[str],
) -> dict[str, Interval]:
    """By hospital, with the scatter of training where it was measured."""
    apart = gains(details["federated"], details["local"]) if {"federated", "local"} <= details.keys() else {}
    trained = {h: math.hypot(*(each[h] for each in spread.values())) for h in spread.get("federated", {})}
    found = apart | cross_site.gains
    return {h: widened(gain, trained.get(h, 0.0)) for h, gain in found.items() if h not in without}


def _in_words(
    made: Results,
    state: StudyState,
    flat: Sequence[Sequence[str]],
    cross_site: CrossSiteEvaluation,
    gates: Mapping[str, float | None],
    *,
    probabilities: bool,
) -> Results:
    """With what is said of the figures, in English for programs and in the language of the report."""

    def said() -> dict[str, list[str]]:
        problems = [f"{hospital} {why}." for hospital, why in cross_site.problems.items()]
        other = _warnings(state, made, probabilities=probabilities)
        first = [*collapsed_in_words(*flat), *worse_on_average(made.gains), *other, *problems]
        short = gate(made.details.get("federated"), gates, made.answers.get(QUESTION, {}).get("federated"))
        return {"warnings": first} | ({} if short is None else {"gate": short})

    with spoken("en"):
        words = said()
    with spoken(made.language):
        translated = {} if made.language == "en" else said()
    return replace(made, warnings=words["warnings"], gate=words.get("gate"), translated=translated)


def _warnings(state: StudyState, made: Results, *, probabilities: bool) -> list[str]:
    fall = fallen(state.rounds)
    return warnings(
        made.details,
        made.by_hospital,
        made.dropped,
        any(epsilon is not None for epsilon in made.epsilon.values()),
        shuffled=made.shuffled,
        named=made.named,
        calibrated=made.recalibrated,
        fallen=None if fall is None else (*fall, state.outcome.number),
        probabilities=probabilities,
    )


def _spread(arms: Arms) -> dict[str, dict[str, float]]:
    """Of trainings that were repeated, by arm and hospital."""
    by_arm: dict[str, dict[str, float]] = {}
    for arm, trainings in (("federated", arms.federated_again), ("local", arms.local_again)):
        aucs: dict[str, list[float]] = {}
        for hospital, figures in ((h, e.figures) for each in trainings for h, e in each.items()):
            if figures.auc is not None:
                aucs.setdefault(hospital, []).append(figures.auc)
        reach = {hospital: half for hospital, values in aucs.items() if (half := scatter(values)) is not None}
        if reach:
            by_arm[arm] = reach
    return by_arm


def read(path: Path) -> Results:
    """Results as ``server.pages.writing`` has written them.

    Raises:
        CheckpointDamaged: the file is none of this release.
    """
    try:
        return _RESULTS.validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointDamaged(f"{path} holds no results of this release: {error}") from error


def _figures(evaluated: dict[str, Evaluated]) -> dict[str, HospitalRound]:
    return {hospital: answer.figures for hospital, answer in evaluated.items()}


def _repeated(shuffled: list[dict[str, Evaluated]]) -> dict[str, HospitalRound]:
    """Of models trained on labels at random, the mean at each hospital."""
    means = {}
    for hospital in sorted({hospital for each in shuffled for hospital in each}):
        aucs = [each[hospital].figures.auc_interval for each in shuffled if hospital in each]
        mean_of = repeated([interval for interval in aucs if interval is not None])
        means[hospital] = HospitalRound() if mean_of is None else HospitalRound(
            auc=mean_of.value, auc_low=mean_of.low, auc_high=mean_of.high
        )  # fmt: skip
    return means


def _pooled(evaluated: dict[str, Evaluated]) -> Interval | None:
    auc = pooled_auc(evaluated)
    return None if auc is None else Interval(*auc)


def _matrix(cross_site: CrossSiteEvaluation, state: StudyState) -> dict[str, dict[str, Interval | None]]:
    if not cross_site.matrix:
        return {}
    rows = {name: _figures(each) for name, each in cross_site.matrix.items()} | {"federated": state.outcome.hospitals}
    return {name: {h: figures.auc_interval for h, figures in sorted(each.items())} for name, each in rows.items()}


def _validation_epsilon(rounds: list[RoundRecord]) -> dict[str, float | None]:
    """As the last evaluation that each hospital answered tells it."""
    answers = [(name, f) for record in rounds for name, f in record.hospitals.items() if f.evaluation_noise is not None]
    return {name: figures.evaluation_epsilon for name, figures in answers}


def _epsilon(rounds: list[RoundRecord]) -> dict[str, float | None]:
    hospitals = sorted({hospital for record in rounds for hospital in record.hospitals})
    return {h: next((r.hospitals[h].epsilon for r in reversed(rounds) if _spent(r, h)), None) for h in hospitals}


def _federated(state: StudyState) -> dict[str, Evaluated]:
    """The evaluation of the model that is handed over, as the hospitals told it."""
    evaluations = {}
    for hospital, figures in sorted(state.outcome.hospitals.items()):
        if figures.evaluation_noise is not None and hospital in state.scores:
            more = {name: counts for name, counts in state.scores.items() if name.rpartition(".")[0] == hospital}
            scores = {name.removeprefix(f"{hospital}."): counts for name, counts in more.items()}
            every = {"histogram": state.scores[hospital], **scores}
            evaluations[hospital] = Evaluated(figures, every, edges=state.outcome.edges)
    return evaluations


def _details(evaluations: ByArm) -> dict[str, Arm]:
    arms = {arm: arm_of(histograms_of(each)) for arm, each in evaluations.items()}
    return {arm: figures for arm, figures in arms.items() if figures is not None}


def _groups(state: StudyState, federated: Mapping[str, Evaluated], details: dict[str, Arm]) -> list[Subgroup]:
    if "federated" not in details:
        return []
    everybody = details["federated"].everybody
    noise = {hospital: answer.figures.evaluation_noise or 0.0 for hospital, answer in federated.items()}
    return subgroups(
        state.scores, noise, Thresholds(everybody.specific.threshold, everybody.youden.threshold), state.outcome.edges
    )


def _spent(record: RoundRecord, hospital: str) -> bool:
    return hospital in record.hospitals and record.hospitals[hospital].epsilon is not None


def _total(rounds: list[RoundRecord], hospitals: list[str], what: str) -> dict[str, int]:
    return {h: sum(getattr(r.hospitals[h], what) for r in rounds if h in r.hospitals) for h in hospitals}
