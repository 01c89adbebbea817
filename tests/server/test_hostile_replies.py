"""Whatever a hospital answers costs it that answer and nobody anything else: fuzzed through reading and folding."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from flwr.app import RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.schema.strategy import FedAvg, Median, NormBounding
from server.results.results import results
from server.rounds import evaluation, exchange
from server.rounds.aggregation import _take, _Unusable
from server.rounds.evaluation import Evaluated, pooled_auc, scores_of
from server.rounds.exchange import Answer, _read
from server.rounds.state import HospitalRound, Roster, RoundRecord, StudyState
from server.strategy import registry
from server.strategy.honest_updates import Honest
from server.strategy.strategy import Combiner, Strategy, norm
from server.study.baselines import Arms
from server.study.document import document_of
from tasks.protocol import encoding, wire
from tasks.protocol.study import EvaluationTerms
from tasks.protocol.wire import EvaluateOrder, EvaluateReport, TrainOrder, TrainReport
from tests.server import scripted
from tests.server.hostile import message, replies
from tests.server.scripted_app import BOOKS

STRATEGIES = (
    FedAvg(),
    FedAvg(weighting="inverse_noise_variance"),
    Median(),
    NormBounding(norm_bound=1.0),
)
MANY = settings(
    max_examples=40 if settings.get_current_profile_name() == "steady" else 5000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
)


@cache
def order(form: str = "float32", private: bool = True) -> TrainOrder:
    asked = scripted.study(f"wire.up={form}", *([] if private else ["privacy=none"]))
    return TrainOrder(document_of(asked, "scripted-1", {"ash": 2000, "elm": 2000}), 2, dict(scripted.WEIGHTS))


@cache
def train_report(form: str = "float32", private: bool = True) -> TrainReport:
    honest = scripted.honest_update("ash", order(form, private))
    arrays = encoding.shrink(honest, order(form, private).study.wire.up)
    return TrainReport("scripted-1", 2, 1.0 if private else None, 1e-4, 1.5 if private else 0.0, BOOKS, arrays)


def read(
    content: RecordDict, asked: TrainOrder | EvaluateOrder, kind: type[TrainReport] | type[EvaluateReport]
) -> object:
    return _read(message(content), Roster(asked.study, {"ash": 1}), "ash", asked.round, kind)


def taken(
    answer: Answer[TrainReport], asked: TrainOrder, strategy: Strategy, combiner: Combiner, honest: Honest
) -> tuple[HospitalRound | None, str]:
    """What the hospital did, if its update is in the combiner now, or why it is not."""
    try:
        return _take(answer, asked, strategy, combiner, honest)[0], ""
    except _Unusable as error:
        return None, str(error)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("form", ["float32", "float16", "int8"])
@MANY
@given(st.data())
def test_a_report_of_training_is_folded_in_whole_or_not_at_all(form: str, private: bool, data: st.DataObject) -> None:
    asked, good = order(form, private), train_report(form, private)
    usable = [s for s in STRATEGIES if private or s.weighting != "inverse_noise_variance"]
    strategy = registry.build(data.draw(st.sampled_from(usable)))
    report, problem, up = read(data.draw(replies(good)), asked, TrainReport)  # type: ignore[misc]
    assert (report is None) == bool(problem)
    assert len(problem) < 600
    assert not set(problem) & set("<>[]`|\x1b")
    combiner, honest = strategy.combiner(asked.arrays, 3), Honest.of(asked)
    for name in ("elm", "oak", "fir"):
        known = replace(asked, study=replace(asked.study, sizes={name: 2000}))
        other = replace(good, arrays={key: value.copy() for key, value in good.arrays.items()})
        figures, _ = taken(Answer(name, 2, other, "", 0, 0), known, strategy, combiner, honest)
        assert figures is not None
    figures, told = taken(Answer("ash", 2, report, problem, 0, up), asked, strategy, combiner, honest)
    assert (figures is None) == bool(told)
    combined = combiner.combined()
    weights, _ = strategy.step(asked.arrays, {}, combined, 1.0)
    assert all(np.isfinite(value).all() and np.abs(value).max() <= 1e4 for value in weights.values())
    if figures is None:  # nothing of it is in the sum
        alone = encoding.restore(train_report(form, private).arrays, form, asked.arrays)
        if isinstance(strategy.combiner(asked.arrays, 3), type(registry.build(FedAvg()).combiner(asked.arrays, 3))):
            for key, value in combined.items():
                np.testing.assert_allclose(value, alone[key], rtol=1e-5, atol=1e-6)
    elif private:
        assert report.noise_multiplier >= 0.3
        assert 0 <= report.epsilon <= asked.study.privacy.epsilon * (1 + 1e-6)
        assert norm(combined) <= honest.counted(2000, report.noise_multiplier, 2) * 1.001


@cache
def evaluate_order(private: bool, asks: str) -> EvaluateOrder:
    overrides = ["evaluation.subgroups=[sex]", "evaluation.bins=8"] + (["evaluation.epsilon=4"] if private else [])
    document = document_of(scripted.study(*overrides), "scripted-1", {"ash": 2000})
    terms = EvaluationTerms(3, 8, 4.0 if private else None, ["sex"], 4, 0, ["cyst"], ["lesion"])
    return EvaluateOrder(replace(document, evaluation=terms), 3, dict(scripted.WEIGHTS), asks=asks)  # type: ignore[arg-type]


@cache
def evaluate_report(private: bool, asks: str = "scores") -> EvaluateReport:
    rng = np.random.default_rng(5)
    due = wire.due(evaluate_order(private, asks))
    arrays = {name: rng.integers(0, 30, shape).astype(np.float64) for name, shape in due.items()}
    return EvaluateReport("scripted-1", 3, 2.0 if private else None, 1e-4, 1.5 if private else 0.0, BOOKS, arrays)


@pytest.mark.parametrize("private", [True, False])
@MANY
@given(st.data())
def test_whatever_histograms_come_the_study_has_its_results(private: bool, data: st.DataObject) -> None:
    asked, good = evaluate_order(private, "scores"), evaluate_report(private)
    report, problem, up = read(data.draw(replies(good)), asked, EvaluateReport)  # type: ignore[misc]
    found = evaluation._read(Answer("ash", 3, report, problem, 0, up), asked)
    told = {"elm": Evaluated.of(good), "ash": found}
    auc = pooled_auc(told)
    hospitals = {name: each.figures for name, each in told.items()}
    record = RoundRecord(3, 0.1, 1.0, hospitals, {"ash": found.problem} if found.problem else {}, [], auc)
    outcome = results("scripted-1", StudyState({}, [record], scores=scores_of(told)), Arms(), [])
    assert "elm" in outcome.epsilon
    if report is None:
        assert found.problem
    if not found.problem and private:
        assert report.noise >= 0.3
        assert report.epsilon <= 4.0 * (1 + 1e-6)


def test_what_the_fuzzing_starts_from_is_usable() -> None:
    """Or it would test the refusal of the first field alone."""
    for form in ("float32", "float16", "int8"):
        strategy = registry.build(FedAvg())
        report, problem, _ = read(wire.encode(train_report(form)), order(form), TrainReport)  # type: ignore[misc]
        answer = Answer("ash", 2, report, problem, 0, 0)
        figures, told = taken(
            answer, order(form), strategy, strategy.combiner({**scripted.WEIGHTS}, 1), Honest.of(order(form))
        )
        assert figures is not None, told
    report, problem, _ = read(  # type: ignore[misc]
        wire.encode(evaluate_report(True)), evaluate_order(True, "scores"), EvaluateReport
    )
    found = evaluation._read(Answer("ash", 3, report, problem, 0, 0), evaluate_order(True, "scores"))
    assert not found.problem


@pytest.mark.parametrize("noise", [5e-324, 1e-9, 0.29, 1.1e5, 1e308])
@pytest.mark.parametrize("weighting", ["public_size", "inverse_noise_variance"])
def test_noise_that_nobody_plans_costs_the_hospital_its_reply(noise: float, weighting: str) -> None:
    strategy = registry.build(FedAvg(weighting=weighting))
    report = replace(train_report(), noise_multiplier=noise)
    combiner = strategy.combiner({**scripted.WEIGHTS}, 1)
    figures, told = taken(Answer("ash", 2, report, "", 0, 0), order(), strategy, combiner, Honest.of(order()))
    assert figures is None
    assert "is outside 0.3 to 100000" in str(told)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"epsilon": 8.1}, "epsilon of 8.1, but the study grants 8"),
        ({"epsilon": None}, "epsilon of None"),
        ({"delta": 2e-4}, "delta of 0.0002, but the study grants 0.0001"),
        ({"delta": -1e308}, "delta of"),
        ({"noise_multiplier": 0.0}, "it reports no noise"),
    ],
)
def test_figures_beyond_what_the_document_grants_are_refused(changed: dict[str, float], told: str) -> None:
    strategy, report = registry.build(FedAvg()), replace(train_report(), **changed)  # type: ignore[arg-type]
    combiner = strategy.combiner({**scripted.WEIGHTS}, 1)
    assert told in str(taken(Answer("ash", 2, report, "", 0, 0), order(), strategy, combiner, Honest.of(order()))[1])


def test_an_update_longer_than_any_honest_one_is_dropped_and_a_long_one_counts_as_usual() -> None:
    honest, strategy = Honest.of(order()), registry.build(FedAvg())
    much = 3000.0  # times what a patient can do: more than the study needs
    longest, counted = honest.longest(2000, much, 2), honest.counted(2000, much, 2)
    assert counted < 0.9 * longest < 1000, "or the two bounds could not be told apart"
    values = {key: np.ones_like(value) for key, value in scripted.WEIGHTS.items()}
    for part, dropped in ((1.0001, True), (0.9999, False)):
        update = {key: value * np.float32(part * longest / norm(values)) for key, value in values.items()}
        combiner = strategy.combiner({**scripted.WEIGHTS}, 1)
        answer = Answer("ash", 2, replace(train_report(), noise_multiplier=much, arrays=update), "", 0, 0)
        figures, told = taken(answer, order(), strategy, combiner, honest)
        if dropped:
            assert figures is None
            assert "an honest one has at most" in str(told)
        else:
            assert figures is not None
            assert figures.update_norm == pytest.approx(0.9999 * longest)
            assert norm(combiner.combined()) == pytest.approx(counted)


def test_a_hospital_that_the_document_does_not_size_does_not_count() -> None:
    strategy, combiner = (
        registry.build(FedAvg()),
        registry.build(FedAvg()).combiner({**scripted.WEIGHTS}, 1),
    )
    told = taken(Answer("oak", 2, train_report(), "", 0, 0), order(), strategy, combiner, Honest.of(order()))[1]
    assert told == "the study document has no public size for it"


def test_a_reader_that_fences_the_parser_alone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong version: errors of one kind are caught, and a library's panic ends the study."""

    class Panic(BaseException):
        pass

    def panics(*_: object) -> None:
        raise Panic

    monkeypatch.setattr(wire, "decode", panics)
    report, problem, _ = read(wire.encode(train_report()), order(), TrainReport)  # type: ignore[misc]
    assert (report, problem) == (None, "its answer cannot be read (Panic)")
    with pytest.raises(Panic):
        exchange._report_in(message(wire.encode(train_report())), "scripted-1", 2, TrainReport)
