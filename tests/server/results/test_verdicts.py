"""What is said in words, and above all what is not."""

from __future__ import annotations

import numpy as np
import pytest

from server.results.verdicts import decisions, how_compared, verdicts, warnings
from server.rounds.state import HospitalRound, RoundRecord
from server.study.baselines import Arms
from server.study.cross_site_evaluation import CrossSiteEvaluation
from tasks.metrics.interval import Interval
from tests.server.outcome import evaluated, outcome


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        (Interval(0.1, 0.01, 0.2), "Federation helps ash: +0.100"),
        (Interval(0.1, 0.0, 0.2), "No evidence either way for ash"),
        (Interval(0.1, -0.01, 0.2), "No evidence either way for ash"),
        (Interval(-0.1, -0.2, -0.01), "Federation harms ash: −0.100"),
    ],
)
def test_federation_helps_only_where_the_interval_says_so(gain: Interval, says: str) -> None:
    (told,) = verdicts({"ash": gain})
    assert told.startswith(says)
    assert ("Federation helps" in told) == (gain.low > 0)


def test_among_many_hospitals_a_gain_must_be_clearer() -> None:
    """Just beyond zero at 5 % is enough for one hospital, and not for one of ten (Holm)."""
    just, clear = Interval(0.1, 0.004, 0.2), Interval(0.2, 0.1, 0.3)
    assert decisions({"ash": just}) == {"ash": "helps"}
    ten = {f"h{n}": Interval(0.0, -0.1, 0.1) for n in range(9)}
    assert decisions({"ash": just, **ten})["ash"] == "open"
    assert decisions({"ash": clear, **ten})["ash"] == "helps"
    told = verdicts({"ash": just, **ten})[0]
    assert told.startswith("No evidence either way for ash, as one of 10 hospitals")


def test_a_gain_without_a_point_decides_nothing() -> None:
    assert decisions({"ash": Interval(0.2, 0.1, 0.3, firm=False)}) == {"ash": "open"}
    assert "+0.200" not in verdicts({"ash": Interval(0.2, 0.1, 0.3, firm=False)})[0]


def test_equal_models_are_seldom_told_apart_at_any_hospital() -> None:
    """Twenty hospitals, gains that are noise alone: without a correction 64 % of studies have a verdict."""
    rng, wrong = np.random.default_rng(8), 0
    for _ in range(400):
        gains = {f"h{n}": Interval(g, g - 1.96, g + 1.96) for n, g in enumerate(rng.standard_normal(20))}
        wrong += any(found != "open" for found in decisions(gains).values())
    assert wrong <= 33, "at most 5 %, three standard deviations allowed"


def test_scores_that_are_worse_than_a_constant_are_told_before_any_figure() -> None:
    found, _ = outcome({"ash": evaluated(1, 1.0, moved=2.0, bins=256), "elm": evaluated(2, 1.0, moved=2.0, bins=256)})
    (told,) = [text for text in found.warnings if "giving every patient the prevalence" in text]
    assert told.startswith("Scores are worse than")
    assert "calibrated probabilities are better than that" in told
    fine, _ = outcome({"ash": evaluated(1, 2.0, bins=256), "elm": evaluated(2, 2.0, bins=256)})
    assert not [text for text in fine.warnings if "prevalence" in text]
    open_, _ = outcome({"ash": evaluated(1, 0.4, (12, 8)), "elm": evaluated(2, 0.4, (12, 8))})
    (told,) = [text for text in open_.warnings if "giving every patient the prevalence" in text]
    assert "look worse (chance explains it as well)" in told
    assert "are not shown to be better" in told
    alone, _ = outcome({"ash": evaluated(1, 1.0, moved=2.0, bins=256)})
    assert any("no other patients are left" in text for text in alone.warnings)


def test_a_hospital_that_the_others_calibrate_badly_is_told_of() -> None:
    """Prevalences of a twelfth and eleven twelfths, and scores that know neither."""
    each = {"ash": evaluated(1, 0.3, (220, 20), bins=256), "elm": evaluated(2, 0.3, (20, 220), bins=256)}
    found, _ = outcome(each)
    assert any(text.startswith("At ash, calibrated probabilities are worse") for text in found.warnings)
    assert any(text.startswith("At elm, calibrated probabilities are worse") for text in found.warnings)


def test_a_threshold_that_misses_most_is_told_of() -> None:
    found, _ = outcome({"ash": evaluated(1, 0.5), "elm": evaluated(2, 3.0)})
    (told,) = [text for text in found.warnings if "misses most patients with the finding" in text]
    assert "ash" in told
    assert "elm" not in told
    good, _ = outcome({"ash": evaluated(1, 3.0), "elm": evaluated(2, 3.0)})
    assert not [text for text in good.warnings if "operating threshold" in text]
    hidden, _ = outcome({"ash": evaluated(1, 0.5, (30, 20), 8.0), "elm": evaluated(2, 0.5, (30, 20), 8.0)})
    assert not [text for text in hidden.warnings if "misses most" in text], "nobody knows, behind such noise"


def test_a_threshold_that_calls_nearly_everybody_positive_is_told_of() -> None:
    """At one hospital scores are higher than at the others, which have chosen the threshold."""
    many = {f"h{n}": evaluated(n, 2.0, bins=256) for n in range(4)}
    found, _ = outcome({**many, "ash": evaluated(9, 1.0, (40, 30), moved=4.0, bins=256)})
    (told,) = [text for text in found.warnings if "calls most patients without the finding positive" in text]
    assert "ash" in told
    assert "h0" not in told


def test_a_curve_that_falls_is_told_with_the_round_that_is_delivered() -> None:
    high, low = HospitalRound(auc=0.9, auc_low=0.85, auc_high=0.95), HospitalRound(auc=0.6, auc_low=0.5, auc_high=0.7)
    best, last = (RoundRecord(n, 0.0, 0.0, {"ash": h}) for n, h in ((2, high), (5, low)))
    told = warnings({}, None, {}, private=True, fallen=(best, last, 5))
    assert told[1].startswith("The mean AUC fell from 0.90 after round 2 to 0.60 after round 5")
    assert told[1].endswith("The model of round 5 is delivered. evaluation.deliver=better would deliver the best one.")
    kept = warnings({}, None, {}, private=True, fallen=(best, last, 2))
    assert kept[1].endswith("The model of round 2 is delivered.")


def test_gains_are_told_of_hospitals_that_have_both_figures() -> None:
    federated = {"ash": evaluated(1, 3.0, (400, 400)), "elm": evaluated(2, 2.0), "oak": evaluated(3, 2.0, (50, 0))}
    local = {"ash": evaluated(4, 0.5, (400, 400)), "elm": evaluated(5, 2.0), "oak": evaluated(6, 2.0)}
    found, _ = outcome(federated, Arms(local=local))
    assert found.gains.keys() == {"ash", "elm"}
    assert found.gains["ash"].low > 0
    assert found.gains["elm"].low < 0 < found.gains["elm"].high


def test_a_hospital_of_one_class_is_warned_of_first() -> None:
    found, _ = outcome({"ash": evaluated(1, 2.0), "oak": evaluated(3, 2.0, (50, 0))})
    assert found.warnings[0].startswith("oak has validation patients of one class only")
    noisy, _ = outcome({"ash": evaluated(1, 2.0, (500, 500), 2.0), "oak": evaluated(3, 2.0, (50, 5), 4.0)})
    assert noisy.warnings[0].startswith("The noise may hide a whole class of oak's patients")


@pytest.mark.parametrize(("sizes", "warned"), [(((90, 10), (10, 90)), True), (((50, 50), (50, 50)), False)])
def test_hospitals_that_predict_the_label_are_warned_of(
    sizes: tuple[tuple[int, int], tuple[int, int]], warned: bool
) -> None:
    found, _ = outcome({"ash": evaluated(1, 2.0, sizes[0]), "elm": evaluated(2, 2.0, sizes[1])})
    assert any("The hospital predicts the label" in warning for warning in found.warnings) == warned


@pytest.mark.parametrize(
    ("oak", "yew", "warned"),
    [((5, 0), (0, 4), True), ((5, 0), (3, 0), False), ((5, 1), (0, 4), False), ((0, 3), (2, 2), False)],
)
def test_hospitals_of_opposite_classes_are_warned_of_however_few_their_patients(
    oak: tuple[int, int], yew: tuple[int, int], warned: bool
) -> None:
    found, _ = outcome({"ash": evaluated(1, 2.0), "oak": evaluated(3, 2.0, oak), "yew": evaluated(4, 2.0, yew)})
    told = [warning for warning in found.warnings if "reveals the label" in warning]
    assert bool(told) == warned
    assert all("oak validated with negative patients only, yew with positive ones only" in text for text in told)


def test_noised_counts_do_not_tell_that_a_hospital_has_one_class() -> None:
    each = {"oak": evaluated(3, 2.0, (50, 0), 4.0), "yew": evaluated(4, 2.0, (0, 50), 4.0)}
    found, _ = outcome({"ash": evaluated(1, 2.0, (500, 500), 2.0), **each})
    assert not any("reveals the label" in warning for warning in found.warnings)


def test_a_model_that_learned_from_random_labels_is_warned_of() -> None:
    federated = {"ash": evaluated(1, 2.0)}
    found, _ = outcome(federated, Arms(shuffled=[{"ash": evaluated(2, 2.0)}, {"ash": evaluated(3, 2.0)}]))
    assert any("permuted labels" in warning for warning in found.warnings)
    found, _ = outcome(federated, Arms(shuffled=[{"ash": evaluated(2, 0.0)}]))
    assert not any("permuted labels" in warning for warning in found.warnings)


def test_one_model_of_random_labels_that_strays_is_no_warning_among_several() -> None:
    federated, astray = {"ash": evaluated(1, 2.0)}, {"ash": evaluated(2, 2.0)}
    honest = [{"ash": evaluated(seed, distance)} for seed, distance in ((3, 0.0), (4, -0.7), (5, 0.2))]
    found, _ = outcome(federated, Arms(shuffled=[astray, *honest]))
    assert not any("permuted labels" in warning for warning in found.warnings)
    assert found.shufflings == 4
    assert found.shuffled is not None
    each = [a["ash"].figures.auc for a in (astray, *honest)]
    assert found.shuffled.value == pytest.approx(np.mean([auc for auc in each if auc is not None]))
    assert found.arms["shuffled"]["ash"].auc == pytest.approx(found.shuffled.value)
    assert found.metrics()["result/pooled_patients/shuffled_auc"] == found.shuffled.value
    assert "shuffled" not in found.details


def test_a_paired_gain_takes_the_place_of_the_other_one() -> None:
    federated = {"ash": evaluated(1, 2.0), "elm": evaluated(2, 2.0)}
    local = {"ash": evaluated(4, 1.8), "elm": evaluated(5, 1.8)}
    cross_site = CrossSiteEvaluation(
        {"ash": Interval(0.02, 0.01, 0.03)}, epsilon={"ash": 3.99}, problems={"elm": "did not (x)"}
    )
    found, _ = outcome(federated, Arms(local=local), cross_site=cross_site)
    assert found.gains["ash"] == Interval(0.02, 0.01, 0.03)
    assert found.gains["elm"].high - found.gains["elm"].low > 0.05
    assert found.paired == ["ash"]
    assert found.validation_epsilon == {"ash": 3.99, "elm": None}
    assert "elm did not (x)." in found.warnings
    told = how_compared(found.gains, found.paired)
    assert "patient by patient: ash." in told
    assert "too wide: elm." in told
    assert "was not measured" in told
    assert "as measured" in how_compared(found.gains, found.paired, repeated=True)
    assert how_compared({}, []) == ""
    assert "its own noise" not in told
    assert "event alone" in how_compared(found.gains, found.paired, event_alone=True)
    assert "event" not in told
    assert "its own noise" in how_compared(found.gains, found.paired, noised=True)
    assert found.metrics()["result/ash/gain_low"] == 0.01


def test_the_gate_asks_every_hospital_and_the_lower_limit() -> None:
    federated = {"ash": evaluated(1, 4.0), "elm": evaluated(2, 1.0), "oak": evaluated(3, 2.0, (50, 0))}
    found, _ = outcome(federated, gates={"auc": 0.8, "sensitivity": None, "specificity": None})
    assert found.gate is not None
    assert [reason.split(":")[0] for reason in found.gate] == ["elm", "oak"]
    assert "no figure" in found.gate[1]
    assert found.metrics()["result/gate_passed"] == 0
    found, _ = outcome({"ash": evaluated(1, 4.0)}, gates={"auc": 0.8})
    assert found.gate == []
    assert found.metrics()["result/gate_passed"] == 1
    found, _ = outcome(federated)
    assert found.gate is None
    assert "result/gate_passed" not in found.metrics()


def test_the_gate_for_specificity_asks_all_patients_and_no_hospital_to_differ() -> None:
    """Of equal hospitals half lie below the threshold's own specificity, so each lower limit asks about size alone."""
    equal = {name: evaluated(seed, 3.0, (400, 400)) for seed, name in enumerate(("ash", "elm", "oak"))}
    found, _ = outcome(equal, gates={"specificity": 0.85})
    assert found.gate == []
    found, _ = outcome({**equal, "yew": evaluated(9, 3.0, (400, 400), moved=2.0)}, gates={"specificity": 0.85})
    assert found.gate is not None
    assert any(reason.startswith("yew: specificity has an upper limit") for reason in found.gate)


def test_repeated_trainings_widen_what_is_said() -> None:
    federated, local = {"ash": evaluated(1, 2.0, (400, 400))}, {"ash": evaluated(4, 0.5, (400, 400))}
    once, _ = outcome(federated, Arms(local=local))
    again = [{"ash": evaluated(seed, distance, (400, 400))} for seed, distance in ((11, 2.0), (12, 1.0), (13, 3.0))]
    often, _ = outcome(federated, Arms(local=local, federated_again=again))
    assert once.spread == {}
    assert often.spread["federated"]["ash"] > 0.1
    assert often.gains["ash"].low < once.gains["ash"].low
    narrow, wide = once.auc("federated", "ash"), often.auc("federated", "ash")
    assert narrow is not None
    assert wide is not None
    assert wide.value == narrow.value
    assert wide.high - wide.low > narrow.high - narrow.low
    assert decisions(once.gains)["ash"] == "helps"


def test_bins_that_hide_much_are_named() -> None:
    coarse, _ = outcome({"ash": evaluated(1, 3.0, (400, 400), bins=2)})
    assert any("may hide" in warning for warning in coarse.warnings)
    fine, _ = outcome({"ash": evaluated(1, 3.0, (400, 400), bins=256)})
    assert not any("may hide" in warning for warning in fine.warnings)


def test_groups_are_pooled_over_hospitals_and_small_ones_are_not_shown() -> None:
    sex = np.zeros((3, 2, 16))
    sex[0, :, ::2], sex[1, 1, 3] = 4, 9
    found, _ = outcome({"ash": evaluated(1, 2.0, sex=sex), "elm": evaluated(2, 2.0, sex=sex)})
    shown = {group.level: group.figures for group in found.groups}
    assert shown.keys() == {"female", "male", "not recorded"}
    assert shown["female"] is not None
    assert shown["female"].positives == 64
    assert shown["male"] is None
    assert found.groups[0].share == pytest.approx(64 * 2 / (64 * 2 + 18))


def test_whose_updates_deserve_a_look_is_a_warning() -> None:
    told = warnings({}, None, {}, True, named={"cedar": "3 of 10 rounds, last: its update is close to zero: norm 0"})
    assert "Check the updates of cedar (3 of 10 rounds, last: its update is close to zero: norm 0)." in told
