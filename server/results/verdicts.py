"""What the results allow to be said in words, and the warnings that come first.

"Federation helps" is said only where an interval shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from server.results.figures import Arm
from tasks.metrics.interval import Interval, difference

_TELLING = 0.6
"""From this AUC on, the hospital counts as a predictor of the label."""


def gains(federated: Arm, other: Arm) -> dict[str, Interval]:
    """By how much the federated model's AUC is above another arm's, at each hospital that has both.

    Both were measured on the same patients, but these histograms do not say which score is whose. So the interval is
    that of independent figures, and rather too wide than too narrow. ``server.study.cross_site_evaluation`` has the
    paired comparison, where it was requested.
    """
    both = {h: (f.auc, other.hospitals[h].auc) for h, f in federated.hospitals.items() if h in other.hospitals}
    return {
        h: difference(mine, theirs) for h, (mine, theirs) in both.items() if mine is not None and theirs is not None
    }


def verdict(hospital: str, gain: Interval) -> str:
    """One sentence about one hospital, compared with the model that it would have trained alone."""
    figures = f"{gain.value:+.3f} AUC, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}".replace("-", "−")
    if gain.low > 0:
        return f"Federation helps {hospital}: {figures}."
    if gain.high < 0:
        return f"Federation harms {hospital}: {figures}."
    return f"No evidence either way for {hospital}: {figures}."


def how_compared(gains: Mapping[str, Interval], paired: Collection[str], noised: bool = False) -> str:
    """How the gains were measured; ``noised``: scores leave with noise."""
    if not gains:
        return ""
    same, apart = [h for h in gains if h in paired], [h for h in gains if h not in paired]
    sentences = []
    if same:
        sentences.append(f"Both models scored the same patients, compared patient by patient: {', '.join(same)}.")
    if same and noised:
        sentences.append("It is a separate release with its own noise, so it is not the difference of the AUCs shown.")
    if apart:
        sentences.append(
            f"Compared as if on different patients, so the interval is rather too wide: {', '.join(apart)}. A paired "
            "comparison was not requested, did not arrive, or would have been less precise because of its noise."
        )
    return " ".join(sentences)


def gate(federated: Arm | None, wanted: Mapping[str, float | None]) -> list[str] | None:
    """What keeps the model from being accepted, hospital by hospital; ``None`` where the study has set no thresholds.

    Args:
        wanted: what the lower limit of ``auc``, ``sensitivity`` and ``specificity`` must reach.
    """
    asked = {name: least for name, least in wanted.items() if least is not None}
    if not asked:
        return None
    if federated is None:
        return ["the model was not evaluated at any hospital"]
    reasons = []
    for hospital, figures in federated.hospitals.items():
        reached = {"auc": figures.auc, "sensitivity": figures.specific.sensitivity}
        reached["specificity"] = figures.specific.specificity
        for name, least in asked.items():
            interval = reached[name]
            if interval is None or interval.low < least:
                shortfall = "has no figure" if interval is None else f"has a lower limit of {interval.low:.3f}"
                reasons.append(f"{hospital}: {name} {shortfall}, {least:g} is required")
    return reasons


def warnings(
    arms: Mapping[str, Arm],
    by_hospital: Interval | None,
    dropped: Mapping[str, str],
    private: bool,
    shuffled: Interval | None = None,
    named: Mapping[str, str] | None = None,
) -> list[str]:
    """What a reader must know before any figure.

    Args:
        shuffled: mean AUC of models trained on permuted labels.
        named: by hospital how often its update was conspicuous, and why the last time.
    """
    federated = arms.get("federated")
    sentences = list(_one_class(federated)) if federated else ["The model was not evaluated at any hospital."]
    sentences += _opposite(federated) if federated else []
    if by_hospital is not None and by_hospital.low > 0.5 and by_hospital.value >= _TELLING:
        sentences.append(
            f"The hospital predicts the label. Knowing only the hospital gives a pooled AUC of {_of(by_hospital)}: "
            "read each hospital's own figures, not the pooled ones."
        )
    if shuffled is not None and shuffled.low > 0.5:
        sentences.append(
            f"Models trained on permuted labels still reach an AUC of {_of(shuffled)}. That can be chance: repeat with "
            "another seed, or with more evaluation.shufflings. If it persists, the same patients are on both sides of "
            "the split, or something other than the finding reveals the label."
        )
    if not private:
        sentences.append("The training was not private: no noise was added, and patients have no guarantee.")
    sentences += [f"{hospital} was left out of rounds ({why})." for hospital, why in dropped.items()]
    return sentences + [f"Check the updates of {hospital} ({why})." for hospital, why in (named or {}).items()]


def _one_class(federated: Arm) -> Iterator[str]:
    for hospital, figures in federated.hospitals.items():
        if figures.auc is None:
            exact = figures.size_noise == 0
            few = "too few patients of one class for its noise"
            why = "has validation patients of one class only" if exact else f"has {few}"
            yield f"{hospital} {why}: it has no AUC, and its other figures rest on one class."


def _opposite(federated: Arm) -> list[str]:
    """Hospitals with patients of one class, where others have the other one; noised counts cannot show it."""
    exact = {name: figures for name, figures in federated.hospitals.items() if figures.size_noise == 0}
    negative = [name for name, figures in exact.items() if figures.negatives and not figures.positives]
    positive = [name for name, figures in exact.items() if figures.positives and not figures.negatives]
    if not negative or not positive:
        return []
    return [
        f"The hospital reveals the label: {', '.join(negative)} validated with negative patients only, "
        f"{', '.join(positive)} with positive ones only. A model that recognises the hospital is right about them "
        "without looking for disease: read the figures of each hospital that has both classes."
    ]


def _of(interval: Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"
