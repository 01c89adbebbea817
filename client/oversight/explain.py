"""A review in plain words, for a reader who knows the law and the hospital but not the mathematics.

Tested in ``tests/client/oversight/test_review.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from client.ledger.accounting import Mechanism, epsilon_of
from client.oversight.review import Cost, Review
from client.oversight.settings import every_setting
from client.policy import Part
from conf.schema.model import is_foreign, permission_of
from tasks import task as tasks
from tasks.metrics.foresight import ASSUMED_ANSWERS, ASSUMED_AUC, FORESEEN, Foresight, foresee_answer
from tasks.protocol.study import StudyDocument
from tasks.tables import answer_terms
from tasks.task import QUESTION

APART = (
    "No patient is on both sides, so nobody bears both costs. (If sides were changed, what was spent before counts on "
    "both.)"
)
_SMALL_DELTA = 1e-6


def words(review: Review) -> dict[str, list[str]]:
    """The review as sentences, by heading."""
    return {
        "What the study asks": _asked(review),
        "What leaves this hospital": _departures(review),
        "What it costs the patients": [*(line for cost in review.costs for line in price(cost)), APART],
        **({"Whom that rests on": trust} if (trust := list(_trust(review))) else {}),
        "What its figures can tell": _foreseen(review),
        "What the policy says": _verdict(review),
        "Every setting in the document": every_setting(review.document),
    }


def _network(document: StudyDocument) -> str:
    model = document.model
    options = ", ".join(f"{k} {v}" for k, v in model.items() if k != "name" and v != "")
    if is_foreign(model):
        return (
            f"A network of another package, {permission_of(model)} of {model.get('version')}, whose code this hospital "
            "has installed itself,"
        )
    return f"A {model.get('name')} model{f' ({options})' if options else ''}"


def _asked(review: Review) -> list[str]:
    document = review.document
    terms = document.training
    return [
        f'The study {document.name} asks: "{review.question}" (task {document.task}, version {document.task_version}).',
        *([f"{document.asked_by} asks for it, by the coordinator's word."] if document.asked_by else []),
        f"{_network(document)} is trained here and at other hospitals, "
        f"in {_times(document.rounds, 'round')}. The images stay here; only the model is exchanged.",
        f"This hospital trains in at most {document.asked} of the rounds.",
        *_method(document),
        f"A round has {_times(document.steps_a_round(), 'step')}. Each training patient takes part in a step with "
        f"probability {terms.sample_rate:g}, with {_times(terms.images_per_patient, 'image')}.",
        f"What one patient can "
        f"change in a step is limited to {document.privacy.clip_norm:g}, and the model then moves by "
        f"{terms.learning_rate:g} times the result"
        + (f", falling to {terms.final_rate:g} of that in the last round." if terms.final_rate != 1 else "."),
        f"The model is also evaluated on the validation patients, {_times(document.evaluation.releases, 'time')}; "
        "it is never trained on them.",
    ]


def _method(document: StudyDocument) -> Iterator[str]:
    method = document.method
    if method.stays == "normalisation":
        yield "The scales of its normalisation layers are local: they are trained here and never leave."
    if method.stays == "head":
        yield "Its last layer is local: it is trained here and never leaves."
    if method.personal is not None:
        yield "A second model is trained for this hospital only, in as many steps again; it never leaves."
    if method.proximal or method.control_variates:
        yield "What the server sends pulls training here towards the shared model, independently of the patients."


def _departures(review: Review) -> list[str]:
    lines = []
    for leaving in review.leaving:
        size = f"{leaving.numbers:,} numbers in {_times(leaving.tensors, 'tensor')}, {leaving.bytes:,} bytes"
        noise = _is_noised(review, leaving.part)
        if _is_sum(review.document, leaving.part):
            of_what = "of a step's clipped gradients" if leaving.part == "training" else "of a histogram of scores"
            lines.append(
                f"{_times(leaving.times, 'time')}, and once more for each attempt that fails: this hospital's part "
                f"{of_what} ({size}){noise}, masked: to everybody who lacks the pads of one other honest hospital it "
                "is random numbers. Only the sum of all hospitals is ever read."
            )
        elif leaving.part == "training":
            times = _times(leaving.times, "round")
            lines.append(f"After each of at most {times}: how the model changed ({size}){noise}.")
        elif leaving.by:
            lines.append(f"After the last round: the same once more by {' and by '.join(leaving.by)} ({size}){noise}.")
        elif leaving.of == "findings":
            names = ", ".join(review.document.evaluation.findings)
            lines.append(f"After the last round: the same for {names} ({size}){noise}.")
        elif leaving.of == "outlines":
            names = ", ".join(review.document.evaluation.structures)
            lines.append(
                f"After the last round: how many patients had which agreement between the model's and a reader's "
                f"outlines of {names}, by overlap and by distance ({size}){noise}."
            )
        elif leaving.of == "answers":
            lines += [f"After the last round: {line}" for line in _answers(review.document)]
            lines[-1] = f"{lines[-1][:-1]} ({size} for all of these){noise}."
        elif leaving.of == "range":
            lines.append(
                "Before the first of these, once: how many patients got about which score, whatever they have (a "
                f"histogram of {leaving.numbers} cells, {size}), with more noise; where the others' cells lie follows."
            )
        elif leaving.of == "two models":
            bins = review.document.evaluation.paired
            lines.append(
                "After the last round, once: a second model is received, and how many patients with and without the "
                f"finding got which scores from both leaves (a histogram of {bins} x {bins} cells for each, "
                f"{size}){noise}."
            )
        elif leaving.of:
            lines.append(
                f"After the last round, {_times(leaving.times, 'time')}: another hospital's own model is received, and "
                f"the same figures for it leave ({size}){noise}."
            )
        else:
            lines.append(
                f"{_times(leaving.times, 'time')}: how many patients with and without the finding got which score "
                f"(a histogram of {review.document.evaluation.bins} cells for each, {size}){noise}."
            )
    lines.append(
        "With each message: the study's name, the round, this hospital's name and public size, and the epsilon spent. "
        "If something fails, an error code without text. Nothing else: no image, no patient name or number."
    )
    return lines


def _answers(document: StudyDocument) -> list[str]:
    """What leaves of questions with other answers than yes or no, a sentence each."""
    lines = []
    for name, answer in document.evaluation.answers.items():
        question = "the task's question" if name == QUESTION else name
        rows, columns = answer.cells
        if answer.kind == "measure":
            lines.append(
                f"of {question}, how many patients had which measured value, which value from the model, and which "
                f"difference between them (three histograms of {columns} cells)."
            )
        else:
            kind = "classes" if answer.kind == "classes" else "grades"
            line = f"of {question}, how many patients of each of {rows} {kind} were told which"
            more = "; and how many of each class, and of the others, got which score for it"
            lines.append(f"{line}{more if answer.kind == 'classes' else ''}.")
    return lines


def _is_sum(document: StudyDocument, part: Part) -> bool:
    sums = document.secure_sum
    return sums is not None and (sums.steps if part == "training" else sums.figures)


def _trust(review: Review) -> Iterator[str]:
    """Whom a patient's protection rests on where hospitals share the noise."""
    sums = review.document.secure_sum
    if sums is None:
        return
    hospitals, colluding = len(sums.peers), sums.colluding
    for cost in review.costs:
        if cost.share is None or cost.granted is None:
            continue
        who = "training patients" if cost.part == "training" else "validation patients"
        alone = epsilon_of(cost.share, cost.delta)
        cap = "" if cost.cap_alone is None else f" (your cap for this is {cost.cap_alone:g})"
        yield (
            f"Your {who} have epsilon {cost.granted:g} against the coordinator and up to {colluding} other hospital(s) "
            f"acting together, if at least {hospitals - colluding} of the {hospitals} hospitals, yours among them, add "
            f"the noise that they promised. If all others lied, your patients would still have epsilon "
            f"{_amount(alone)}{cap}."
        )
    yield (
        f"A sum is made of at least {sums.least_hospitals} hospitals. This hospital accepts only those whose keys are "
        "in its own policy.secure_sum.peers: compare the fingerprints below by telephone. An attempt that fails stays "
        "charged; nothing can be learned from it."
    )


def _is_noised(review: Review, part: Part) -> str:
    cost = next(cost for cost in review.costs if cost.part == part)
    return ", WITHOUT noise" if cost.granted is None else ", with noise on every number"


def price(cost: Cost) -> Iterator[str]:
    """What one part costs its patients, and what is left of their budget."""
    who = "training patients" if cost.part == "training" else "validation patients"
    if cost.granted is None or cost.asked is None:
        yield f"The {who} get no protection: without noise there is no limit on what can be learned about one of them."
        return
    lowered = "" if cost.granted == cost.asked else f", of which the policy grants {cost.granted:g}"
    yield f"For the {who}: epsilon {cost.asked:g} is requested{lowered}, at delta {cost.delta:g}. {meaning(cost)}"
    if cost.plan is not None and cost.after is not None:
        squeezed = ""
        if cost.squeezed and cost.alone is not None:
            squeezed = f", instead of {_noise(cost.alone)}, because little of these patients' lifetime budget is left"
        yield (
            f"Noise of {_noise(cost.plan)} times the most that one patient can change is added{squeezed}, "
            f"{_times(sum(mechanism.count for mechanism in cost.plan), 'time')} in all."
        )
        small = epsilon_of(cost.plan, _SMALL_DELTA)
        yield f"At the smaller delta {_SMALL_DELTA:g} the same noise gives epsilon {small:.2f}."
        if cost.set_aside:
            yield f"Other ongoing studies have set aside {cost.set_aside:.2f} in addition to what they have spent."
        so_far = f" ({_amount(cost.spent_by_study)} of it by this study)" if cost.spent_by_study else ""
        yield (
            f"All studies so far have spent {_amount(cost.spent)}{so_far} of these patients' lifetime budget of "
            f"{cost.cap:g}. After this study {_amount(cost.after)} would be spent, and "
            f"{_amount(max(0.0, cost.cap - cost.after))} would remain."
        )


def _foreseen(review: Review) -> list[str]:
    """Of this hospital alone, by its declared size; the pooled figures of all hospitals are sharper."""
    foreseen = review.foresight
    if foreseen is None:
        return ["This cannot be said: this hospital's size is not declared, or no scores would leave."]
    about = (
        f"With about {foreseen.patients} validation patients here (from public_size), a third of them with the finding,"
    )
    if foreseen.tells_nothing:
        return [
            f"{about} the noise would hide who has the finding: the 95 % interval of an AUC would be about "
            f"{foreseen.width:.2f} wide. Its validation patients' privacy would be spent on figures that tell nothing "
            "about it. The coordinator can ask for fewer evaluations or fewer bins."
        ]
    return [
        f"{about} and a model with an AUC of {ASSUMED_AUC:g}, the last AUC of this hospital would have a 95 % interval "
        f"about {foreseen.width:.2f} wide; with a probability of {foreseen.none:.0%} there would be an interval only.",
        *_answers_foreseen(review.document, foreseen),
    ]


def _answers_foreseen(document: StudyDocument, foreseen: Foresight) -> Iterator[str]:
    """Of each question with another answer than yes or no, were it known of all these patients. A document that has
    other tables than this task gives none: nothing is simulated in cells that somebody else has made up."""
    terms = document.evaluation
    if document.task not in tasks.names() or terms.answers != answer_terms(tasks.get(document.task), terms.bins):
        return
    for question, asked in terms.answers.items():
        cells = asked.cells[0], asked.cells[1]
        told = foresee_answer(asked.kind, cells, foreseen.patients, terms.bins, foreseen.noise)
        yield (
            f"Of {question.replace('_', ' ')}, the {FORESEEN[asked.kind]} would have an interval about "
            f"{told.width:.2f} wide; with a probability of {told.none:.0%} without a point. Assumed: {ASSUMED_ANSWERS}."
        )


def _noise(plan: list[Mechanism]) -> str:
    noises = sorted({f"{mechanism.noise_multiplier:.2f}" for mechanism in plan}, key=float)
    return noises[0] if len(noises) == 1 else f"{noises[0]} to {noises[-1]}"


def meaning(cost: Cost) -> str:
    """What epsilon guarantees, and no more, in one sentence (Dwork and Roth, 2014, section 2.3)."""
    epsilon = cost.granted or 0.0
    factor = math.exp(min(epsilon, 700))
    odds = f"{factor:.3g}" if factor < 100 else f"{factor:,.0f}" if factor < 1e7 else f"{factor:.1e}"
    weak = ": a worst case, and by itself a weak promise" if factor >= 100 else ", even in the worst case"
    return (
        f"That means: anyone who sees everything that leaves, and knows everything else about a patient, can change "
        f"the odds that this patient took part by a factor of at most {odds}{weak}; with a probability of about "
        f"{cost.delta:g} even that may fail."
    )


def _verdict(review: Review) -> list[str]:
    parts_of: dict[str, list[str]] = {}
    for part, reasons in review.refused.items():
        for reason in reasons:
            parts_of.setdefault(reason, []).append(part)
    lines = [f"REFUSED ({' and '.join(parts)}): {reason}." for reason, parts in parts_of.items()]
    return lines or ["The policy permits everything."]


def _amount(epsilon: float) -> str:
    return f"{epsilon:.2f}" if math.isfinite(epsilon) else "an unlimited amount, by training without noise,"


def _times(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
