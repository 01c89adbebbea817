"""A review in plain words, for a reader who knows the law and the hospital but not the mathematics.

Tested in ``tests/client/oversight/test_review.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from client.ledger.accounting import Mechanism, epsilon_of
from client.oversight.departures import departures, rounds, times
from client.oversight.review import Cost, Review
from client.oversight.settings import every_setting
from client.policy import PART_WORDS
from conf.schema.model import is_foreign, permission_of
from tasks import task as tasks
from tasks.machine.language import joined, later, number, say, say_many
from tasks.metrics.foresight import ASSUMED_ANSWERS, ASSUMED_AUC, FORESEEN, Foresight, foresee_answer
from tasks.protocol.study import StudyDocument
from tasks.tables import answer_terms

APART = later(
    "No patient is on both sides, so nobody bears both costs. (If sides were changed, what was spent before counts on "
    "both.)"
)
_SMALL_DELTA = 1e-6


def words(review: Review) -> dict[str, list[str]]:
    """The review as sentences, by heading, in the language spoken."""
    trust = list(_trust(review))
    return {
        say("What the study asks"): _asked(review),
        say("What leaves this hospital"): departures(review),
        say("What it costs the patients"): [*(line for cost in review.costs for line in price(cost)), say(APART)],
        **({say("Whom that rests on"): trust} if trust else {}),
        say("What its figures can tell"): _foreseen(review),
        say("What the policy says"): _verdict(review),
        say("Every setting in the document"): every_setting(review.document),
    }


def _network(document: StudyDocument) -> str:
    model = document.model
    options = ", ".join(f"{k} {v}" for k, v in model.items() if k != "name" and v != "")
    if is_foreign(model):
        return say(
            "A network of another package, {entry} of {version}, whose code this hospital has installed itself,",
            entry=permission_of(model),
            version=model.get("version"),
        )
    options = f" ({options})" if options else ""
    return say("A {name} model{options}", name=model.get("name"), options=options)


def _asked(review: Review) -> list[str]:
    document = review.document
    terms = document.training
    falling = say(", falling to {rate} of that in the last round", rate=number(terms.final_rate))
    limits = {
        "clip": number(document.privacy.clip_norm),
        "rate": number(terms.learning_rate),
        "falling": falling if terms.final_rate != 1 else "",
    }
    return [
        say(
            'The study {study} asks: "{question}" (task {task}, version {version}).',
            study=document.name,
            question=say(review.question),
            task=document.task,
            version=document.task_version,
        ),
        *([say("{who} asks for it, by the coordinator's word.", who=document.asked_by)] if document.asked_by else []),
        say(
            "{network} is trained here and at other hospitals, in {rounds}. The images stay here; only the model is "
            "exchanged.",
            network=_network(document),
            rounds=rounds(document.rounds),
        ),
        say_many(
            "This hospital trains in at most {n} of the rounds.",
            "This hospital trains in at most {n} of the rounds.",
            document.asked,
        ),
        *_method(document),
        say(
            "A round has {steps}. Each training patient takes part in a step with probability {rate}, with {images}.",
            steps=say_many("{n} step", "{n} steps", document.steps_a_round()),
            rate=number(terms.sample_rate),
            images=say_many("{n} image", "{n} images", terms.images_per_patient),
        ),
        say(
            "What one patient can change in a step is limited to {clip}, and the model then moves by {rate} times the "
            "result{falling}.",
            **limits,
        )
        if terms.optimizer == "sgd"
        else say(
            "What one patient can change in a step is limited to {clip}, and each value of the model then moves by "
            "about {rate}, in the direction of the result{falling}.",
            **limits,
        ),
        say(
            "The model is also evaluated on the validation patients, {times}; it is never trained on them.",
            times=times(document.evaluation.releases),
        ),
    ]


def _method(document: StudyDocument) -> Iterator[str]:
    method = document.method
    if method.stays == "normalisation":
        yield say("The scales of its normalisation layers are local: they are trained here and never leave.")
    if method.stays == "head":
        yield say("Its last layer is local: it is trained here and never leaves.")
    if method.personal is not None:
        yield say("A second model is trained for this hospital only, in as many steps again; it never leaves.")
    if method.towards_mean is not None:
        yield say(
            "The model that is trained here is this hospital's own, pulled towards the mean of all hospitals' models. "
            "What leaves says how far it is from that mean, with the noise of its training."
        )
    if method.proximal or method.control_variates:
        yield say("What the server sends pulls training here towards the shared model, independently of the patients.")


def _trust(review: Review) -> Iterator[str]:
    """Whom a patient's protection rests on where hospitals share the noise."""
    sums = review.document.secure_sum
    if sums is None:
        return
    hospitals, colluding = len(sums.peers), sums.colluding
    for cost in review.costs:
        if cost.share is None or cost.granted is None:
            continue
        cap = "" if cost.cap_alone is None else say(" (your cap for this is {cap})", cap=number(cost.cap_alone))
        yield say(
            "Your {who} have epsilon {epsilon} against the coordinator and up to {colluding} other hospital(s) acting "
            "together, if at least {honest} of the {hospitals} hospitals, yours among them, add the noise that they "
            "promised. If all others lied, your patients would still have epsilon {alone}{cap}.",
            who=_who(cost),
            epsilon=number(cost.granted),
            colluding=colluding,
            honest=hospitals - colluding,
            hospitals=hospitals,
            alone=_amount(epsilon_of(cost.share, cost.delta)),
            cap=cap,
        )
    yield say(
        "A sum is made of at least {least} hospitals. This hospital accepts only those whose keys are in its own "
        "policy.secure_sum.peers: compare the fingerprints below by telephone. An attempt that fails stays charged; "
        "nothing can be learned from it.",
        least=sums.least_hospitals,
    )


def _who(cost: Cost) -> str:
    return say("training patients") if cost.part == "training" else say("validation patients")


def price(cost: Cost) -> Iterator[str]:
    """What one part costs its patients, and what is left of their budget."""
    if cost.granted is None or cost.asked is None:
        yield say(
            "The {who} get no protection: without noise there is no limit on what can be learned about one of them.",
            who=_who(cost),
        )
        return
    granted = number(cost.granted)
    yield say(
        "For the {who}: epsilon {asked} is requested{lowered}, at delta {delta}. {meaning}",
        who=_who(cost),
        asked=number(cost.asked),
        lowered="" if cost.granted == cost.asked else say(", of which the policy grants {granted}", granted=granted),
        delta=number(cost.delta),
        meaning=meaning(cost),
    )
    if cost.plan is None or cost.after is None:
        return
    squeezed = ""
    if cost.squeezed and cost.alone is not None:
        squeezed = say(
            ", instead of {noise}, because little of these patients' lifetime budget is left", noise=_noise(cost.alone)
        )
    yield say(
        "Noise of {noise} times the most that one patient can change is added{squeezed}, {times} in all.",
        noise=_noise(cost.plan),
        squeezed=squeezed,
        times=times(sum(mechanism.count for mechanism in cost.plan)),
    )
    yield say(
        "At the smaller delta {delta} the same noise gives epsilon {epsilon}.",
        delta=number(_SMALL_DELTA),
        epsilon=number(epsilon_of(cost.plan, _SMALL_DELTA), ".2f"),
    )
    yield from _left(cost, cost.after)


def _left(cost: Cost, after: float) -> Iterator[str]:
    if cost.set_aside:
        yield say(
            "Other ongoing studies have set aside {epsilon} in addition to what they have spent.",
            epsilon=number(cost.set_aside, ".2f"),
        )
    by_this = say(" ({epsilon} of it by this study)", epsilon=_amount(cost.spent_by_study))
    yield say(
        "All studies so far have spent {spent}{by_this} of these patients' lifetime budget of {cap}. After this study "
        "{after} would be spent, and {left} would remain.",
        spent=_amount(cost.spent),
        by_this=by_this if cost.spent_by_study else "",
        cap=number(cost.cap),
        after=_amount(after),
        left=_amount(max(0.0, cost.cap - after)),
    )


def _foreseen(review: Review) -> list[str]:
    """Of this hospital alone, by its declared size; the pooled figures of all hospitals are sharper."""
    foreseen = review.foresight
    if foreseen is None:
        return [say("This cannot be said: this hospital's size is not declared, or no scores would leave.")]
    width = number(foreseen.width, ".2f")
    if foreseen.tells_nothing:
        return [
            say(
                "With about {patients} validation patients here (from public_size), a third of them with the finding, "
                "the noise would hide who has the finding: the 95 % interval of an AUC would be about {width} wide. "
                "Its validation patients' privacy would be spent on figures that tell nothing about it. The "
                "coordinator can ask for fewer evaluations or fewer bins.",
                patients=foreseen.patients,
                width=width,
            )
        ]
    return [
        say(
            "With about {patients} validation patients here (from public_size), a third of them with the finding, and "
            "a model with an AUC of {auc}, the last AUC of this hospital would have a 95 % interval about {width} "
            "wide; with a probability of {none} there would be an interval only.",
            patients=foreseen.patients,
            auc=number(ASSUMED_AUC),
            width=width,
            none=number(foreseen.none, ".0%"),
        ),
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
        yield say(
            "Of {question}, the {figure} would have an interval about {width} wide; with a probability of {none} "
            "without a point. Assumed: {assumed}.",
            question=question.replace("_", " "),
            figure=say(FORESEEN[asked.kind]),
            width=number(told.width, ".2f"),
            none=number(told.none, ".0%"),
            assumed=say(ASSUMED_ANSWERS),
        )


def _noise(plan: list[Mechanism]) -> str:
    noises = sorted({f"{mechanism.noise_multiplier:.2f}" for mechanism in plan}, key=float)
    least, most = number(float(noises[0]), ".2f"), number(float(noises[-1]), ".2f")
    return least if len(noises) == 1 else say("{least} to {most}", least=least, most=most)


def meaning(cost: Cost) -> str:
    """What epsilon guarantees, and no more, in one sentence (Dwork and Roth, 2014, section 2.3)."""
    epsilon = cost.granted or 0.0
    factor = math.exp(min(epsilon, 700))
    weak = say(": a worst case, and by itself a weak promise") if factor >= 100 else say(", even in the worst case")
    return say(
        "That means: anyone who sees everything that leaves, and knows everything else about a patient, can change the "
        "odds that this patient took part by a factor of at most {odds}{weak}; with a probability of about {delta} "
        "even that may fail.",
        odds=number(factor, ".3g" if factor < 100 else ",.0f" if factor < 1e7 else ".1e"),
        weak=weak,
        delta=number(cost.delta),
    )


def _verdict(review: Review) -> list[str]:
    parts_of: dict[str, list[str]] = {}
    for part, reasons in review.refused.items():
        for reason in reasons:
            parts_of.setdefault(reason, []).append(say(PART_WORDS[part]))
    lines = [
        say("REFUSED ({parts}): {reason}.", parts=joined(parts), reason=reason) for reason, parts in parts_of.items()
    ]
    return lines or [say("The policy permits everything.")]


def _amount(epsilon: float) -> str:
    return number(epsilon, ".2f") if math.isfinite(epsilon) else say("an unlimited amount, by training without noise,")
