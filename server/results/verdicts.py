"""What the results allow to be said in words, and the warnings that come first.

"Federation helps" is said only where an interval shows it, and so seldom by chance that in one study in twenty at most
it is said of any hospital at all without being so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from scipy.special import ndtr

from server.results.answers import AnswerArm, told_figures
from server.results.figures import Arm
from server.results.recalibrated import Recalibrated
from server.results.weaknesses import fall, in_words, weaknesses
from server.rounds.state import EVERYBODY, RoundRecord
from server.study.gate import ALL_OF_ANSWERS, ERROR
from tasks.machine.language import later, number, say
from tasks.metrics.interval import Interval, Z, difference
from tasks.metrics.ranking import HospitalAlone

_TELLING = 0.6
"""From this AUC on, the hospital counts as a predictor of the label."""
_ALPHA = 0.05
_HIDES_MUCH = 0.03
"""Bins that may hide so much of an AUC are named."""


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


Decision = Literal["helps", "harms", "open"]


def decisions(gains: Mapping[str, Interval]) -> dict[str, Decision]:
    """For each hospital what its gain shows, with at most 5 % risk of a wrong word about any of them (Holm, Scand J
    Stat 6:65, 1979): of m hospitals the clearest must differ from zero at 5 % / m, the next at 5 % / (m - 1), and so
    on. How clear a gain is follows from its distance to zero in units of the limit on that side."""
    found: dict[str, Decision] = dict.fromkeys(gains, "open")
    clearest = sorted(gains, key=lambda h: -_distance(gains[h]))
    for left, hospital in zip(range(len(gains), 0, -1), clearest, strict=True):
        if 2 * float(ndtr(-Z * _distance(gains[hospital]))) >= _ALPHA / left:
            break
        found[hospital] = "helps" if gains[hospital].value > 0 else "harms"
    return found


def _distance(gain: Interval) -> float:
    """From zero, in lengths of the interval on the side of zero; 1 where a limit is zero."""
    towards_zero = gain.value - gain.low if gain.value > 0 else gain.high - gain.value
    return abs(gain.value) / max(towards_zero, 1e-12) if gain.firm else 0.0


def verdicts(gains: Mapping[str, Interval]) -> list[str]:
    """One sentence about each hospital, compared with the model that it would have trained alone."""
    found, sentences = decisions(gains), []
    for hospital, gain in gains.items():
        figures = gain_in_words(gain)
        if found[hospital] != "open":
            helps = found[hospital] == "helps"
            said = {"hospital": hospital, "figures": figures}
            sentences.append(
                say("Federation helps {hospital}: {figures}.", **said)
                if helps
                else say("Federation harms {hospital}: {figures}.", **said)
            )
        elif gain.low > 0 or gain.high < 0:
            sentences.append(
                say(
                    "No evidence either way for {hospital}, as one of {number} hospitals: {figures}.",
                    hospital=hospital,
                    number=len(gains),
                    figures=figures,
                )
            )
        else:
            sentences.append(
                say("No evidence either way for {hospital}: {figures}.", hospital=hospital, figures=figures)
            )
    return sentences


def gain_in_words(gain: Interval) -> str:
    """A gain in AUC with its limits; the limits alone where noise leaves no point."""
    low, high = (number(end, "+.3f").replace("-", "−") for end in (gain.low, gain.high))
    limits = say("95 % interval {low} to {high}", low=low, high=high)
    return f"{number(gain.value, '+.3f').replace('-', '−')} AUC, {limits}" if gain.firm else f"AUC, {limits}"


def how_compared(
    gains: Mapping[str, Interval],
    paired: Collection[str],
    noised: bool = False,
    repeated: bool = False,
    *,
    event_alone: bool = False,
) -> str:
    """How the gains were measured; ``noised``: scores leave with noise; ``repeated``: trainings were repeated;
    ``event_alone``: the question has other answers than yes or no, and they are about its event."""
    if not gains:
        return ""
    same, apart = [h for h in gains if h in paired], [h for h in gains if h not in paired]
    sentences = []
    if same:
        names = ", ".join(same)
        sentences.append(
            say("Both models scored the same patients, compared patient by patient: {hospitals}.", hospitals=names)
        )
    if same and noised:
        sentences.append(
            say("It is a separate release with its own noise, so it is not the difference of the AUCs shown.")
        )
    elif same:
        sentences.append(
            say("Both scores are in few bins there, so a gain can differ by some thousandths from the AUCs shown.")
        )
    if apart:
        sentences.append(
            say(
                "Compared as if on different patients, so the interval is rather too wide: {hospitals}. A paired "
                "comparison was not requested, did not arrive, or would have been less precise because of its noise.",
                hospitals=", ".join(apart),
            )
        )
    if event_alone:
        sentences.append(
            say(
                "Gains and verdicts are about the question's event alone, yes or no: tables of answers do not say "
                "which two models gave to one patient, so they do not show how much better one of them tells the "
                "answers."
            )
        )
    if len(gains) > 1:
        sentences.append(
            say("Verdicts are wrong about any hospital in at most one study of twenty (Holm's correction).")
        )
    sentences.append(
        say("They include how much another training would differ, as measured.")
        if repeated
        else say(
            "They speak of these trained models: how much another training would differ was not measured "
            "(evaluation.repeats)."
        )
    )
    return " ".join(sentences)


def gate(
    federated: Arm | None, wanted: Mapping[str, float | None], answers: AnswerArm | None = None
) -> list[str] | None:
    """What keeps the model from being accepted, hospital by hospital; ``None`` where the study has set no thresholds.

    Args:
        wanted: by figure, what the lower limit must reach, or of ``mean_error`` the upper limit must not exceed.
        answers: the federated model's figures of the task's own question, where that is no yes-or-no question.
    """
    asked = {name: least for name, least in wanted.items() if least is not None}
    if not asked:
        return None
    if federated is None:
        return [say("the model was not evaluated at any hospital")]
    reasons = []
    for hospital, figures in federated.hospitals.items():
        reached = {"auc": figures.auc, "sensitivity": figures.specific.sensitivity}
        for name in asked.keys() & reached.keys():
            reasons += _short_of(hospital, name, reached[name], asked[name])
    if "specificity" in asked:
        reasons += _unspecific(federated, asked["specificity"])
    of_answers = {name: least for name, least in asked.items() if name in ALL_OF_ANSWERS}
    return reasons + _unfit_answers(federated, of_answers, answers)


def _unfit_answers(federated: Arm, asked: Mapping[str, float], answers: AnswerArm | None) -> list[str]:
    """Each hospital that was evaluated must have the figure, whether it has sent its tables or not."""
    reasons = []
    for hospital in federated.hospitals if asked else ():
        told = {} if answers is None or hospital not in answers.hospitals else told_figures(answers.hospitals[hospital])
        for name, bound in asked.items():
            figure = told.get(name)
            if name != ERROR:
                reasons += _short_of(hospital, name, figure, bound)
            elif figure is None:
                reasons.append(
                    say(
                        "{who}: {figure} has no figure, at most {bound} is asked",
                        who=hospital,
                        figure=name,
                        bound=number(bound),
                    )
                )
            elif figure.high > bound:
                reasons.append(
                    say(
                        "{who}: {figure} has an upper limit of {limit}, at most {bound} is required",
                        who=hospital,
                        figure=name,
                        limit=number(figure.high, ".3g"),
                        bound=number(bound),
                    )
                )
    return reasons


def _short_of(who: str, name: str, interval: Interval | None, least: float) -> list[str]:
    if interval is not None and interval.low >= least:
        return []
    said = {"who": who, "figure": name, "least": number(least)}
    if interval is None:
        return [say("{who}: {figure} has no figure, {least} is required", **said)]
    limit = number(interval.low, ".3f")
    return [say("{who}: {figure} has a lower limit of {limit}, {least} is required", limit=limit, **said)]


def _unspecific(federated: Arm, least: float) -> list[str]:
    """The threshold was chosen for its specificity on all patients, so these must show that it has it, and no hospital
    that it is different there. To ask for every hospital's lower limit would be to ask for its size: of equal hospitals
    half lie below the common figure."""
    reasons = _short_of(say("all patients"), "specificity", federated.everybody.specific.specificity, least)
    for hospital, figures in federated.hospitals.items():
        interval = figures.specific.specificity
        if interval is None:
            reasons += _short_of(hospital, "specificity", None, least)
        elif interval.high < least:
            reasons.append(
                say(
                    "{who}: {figure} has an upper limit of {limit}, {least} is required",
                    who=hospital,
                    figure="specificity",
                    limit=number(interval.high, ".3f"),
                    least=number(least),
                )
            )
    return reasons


def warnings(
    arms: Mapping[str, Arm],
    by_hospital: HospitalAlone | None,
    dropped: Mapping[str, str],
    private: bool,
    shuffled: Interval | None = None,
    named: Mapping[str, str] | None = None,
    calibrated: Recalibrated | None = None,
    fallen: tuple[RoundRecord, RoundRecord, int] | None = None,
    probabilities: bool = True,
) -> list[str]:
    """What a reader must know before any figure.

    Args:
        shuffled: mean AUC of models trained on permuted labels.
        named: by hospital how often its update was conspicuous, and why the last time.
        calibrated: the federated model's scores as probabilities.
        fallen: if the AUC has fallen, the best round, the last evaluated one, and the number of the delivered one.
        probabilities: whether scores are meant to be such.
    """
    federated = arms.get("federated")
    sentences = list(_one_class(federated)) if federated else [say("The model was not evaluated at any hospital.")]
    sentences += list(weaknesses(federated, calibrated, probabilities)) if federated else []
    sentences += [fall(*fallen)] if fallen else []
    sentences += _opposite(federated) if federated else []
    sentences += list(_hidden(federated)) if federated else []
    if by_hospital is not None and by_hospital.p < _ALPHA and by_hospital.auc >= _TELLING:
        sentences.append(
            say(
                "The hospital predicts the label: prevalences differ (p = {p}), and knowing only the hospital would "
                "give a pooled AUC of about {auc}. Read each hospital's own figures, not the pooled ones.",
                p=number(max(by_hospital.p, 0.001), ".3f"),
                auc=number(by_hospital.auc, ".2f"),
            )
        )
    if shuffled is not None and shuffled.low > 0.5:
        sentences.append(
            say(
                "Models trained on permuted labels still reach an AUC of {auc}. That can be chance: repeat with "
                "another seed, or with more evaluation.shufflings. If it persists, the same patients are on both sides "
                "of the split, or something other than the finding reveals the label.",
                auc=in_words(shuffled),
            )
        )
    if not private:
        sentences.append(say("The training was not private: no noise was added, and patients have no guarantee."))
    left_out = later("{hospital} was left out of rounds ({why}).")
    conspicuous = later("Check the updates of {hospital} ({why}).")
    sentences += [say(left_out, hospital=hospital, why=why) for hospital, why in dropped.items()]
    return sentences + [say(conspicuous, hospital=hospital, why=why) for hospital, why in (named or {}).items()]


def _one_class(federated: Arm) -> Iterator[str]:
    for hospital, figures in federated.hospitals.items():
        if figures.auc is None:
            yield say(
                "{hospital} has validation patients of one class only: it has no AUC, and its other figures rest on "
                "one class.",
                hospital=hospital,
            )
        elif not figures.auc.firm:
            yield say(
                "The noise may hide a whole class of {whose} patients: its figures are intervals without a point.",
                whose=_whose(hospital),
            )


def _whose(hospital: str) -> str:
    if hospital == EVERYBODY:
        return say("{hospitals}'", hospitals=hospital)
    return say("{hospital}'s", hospital=hospital)


def _hidden(federated: Arm) -> Iterator[str]:
    for hospital, figures in federated.hospitals.items():
        if figures.auc is not None and figures.auc.hidden >= _HIDES_MUCH:
            yield say(
                "Many of {whose} patients have scores in one bin: that may hide {hidden} of its AUC, which is in the "
                "upper limit.",
                whose=_whose(hospital),
                hidden=number(figures.auc.hidden, ".2f"),
            )


def _opposite(federated: Arm) -> list[str]:
    """Hospitals with patients of one class, where others have the other one; noised counts cannot show it."""
    exact = {name: figures for name, figures in federated.hospitals.items() if figures.size_noise == 0}
    negative = [name for name, figures in exact.items() if figures.negatives and not figures.positives]
    positive = [name for name, figures in exact.items() if figures.positives and not figures.negatives]
    if not negative or not positive:
        return []
    return [
        say(
            "The hospital reveals the label: {negative} validated with negative patients only, {positive} with "
            "positive ones only. A model that recognises the hospital is right about them without looking for disease: "
            "read the figures of each hospital that has both classes.",
            negative=", ".join(negative),
            positive=", ".join(positive),
        )
    ]
