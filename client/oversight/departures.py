"""What leaves a hospital in a study, in plain words: one sentence for each kind of message.

Tested in ``tests/client/oversight/test_review.py``.
"""

from __future__ import annotations

from client.oversight.review import Leaving, Review
from client.policy import Part
from tasks.machine.language import number, say, say_many
from tasks.protocol.study import EvaluationTerms, StudyDocument
from tasks.protocol.survey import WORDS
from tasks.task import QUESTION


def departures(review: Review) -> list[str]:
    """What leaves the hospital, a sentence each, in the language spoken."""
    lines = [line for leaving in review.leaving for line in _departure(review, leaving)]
    lines.append(
        say(
            "With each message: the study's name, the round, this hospital's name and public size, and the epsilon "
            "spent. If something fails, an error code without text. Nothing else: no image, no patient name or number."
        )
    )
    return lines


def _departure(review: Review, leaving: Leaving) -> list[str]:
    terms, often = review.document.evaluation, times(leaving.times)
    said = {"size": _size(leaving), "noise": _is_noised(review, leaving.part)}
    if _is_sum(review.document, leaving.part):
        of_training = leaving.part == "training"
        what = say("of a step's clipped gradients") if of_training else say("of a histogram of scores")
        return [
            say(
                "{times}, and once more for each attempt that fails: this hospital's part {of_what} ({size}){noise}, "
                "masked: to everybody who lacks the pads of one other honest hospital it is random numbers. Only the "
                "sum of all hospitals is ever read.",
                times=often,
                of_what=what,
                **said,
            )
        ]
    if leaving.part == "training":
        most = rounds(leaving.times)
        return [say("After each of at most {rounds}: how the model changed ({size}){noise}.", rounds=most, **said)]
    if leaving.by:
        by = say(" and by ").join(say(WORDS[name]) for name in leaving.by)
        return [say("After the last round: the same once more by {attributes} ({size}){noise}.", attributes=by, **said)]
    if leaving.of == "answers":
        return _answers(review.document, **said)
    return [_scores(leaving, terms, often, **said)]


def _scores(leaving: Leaving, terms: EvaluationTerms, often: str, size: str, noise: str) -> str:
    """What leaves of scores and outlines, in one sentence."""
    said = {"size": size, "noise": noise}
    match leaving.of:
        case "findings":
            names = ", ".join(terms.findings)
            return say("After the last round: the same for {names} ({size}){noise}.", names=names, **said)
        case "outlines":
            return say(
                "After the last round: how many patients had which agreement between the model's and a reader's "
                "outlines of {names}, by overlap and by distance ({size}){noise}.",
                names=", ".join(terms.structures),
                **said,
            )
        case "range":
            return say(
                "Before the first of these, once: how many patients got about which score, whatever they have (a "
                "histogram of {cells} cells, {size}), with more noise; where the others' cells lie follows.",
                cells=leaving.numbers,
                size=size,
            )
        case "two models":
            return say(
                "After the last round, once: a second model is received, and how many patients with and without "
                "the finding got which scores from both leaves (a histogram of {bins} x {bins} cells for each, "
                "{size}){noise}.",
                bins=terms.paired,
                **said,
            )
        case "others' models":
            return say(
                "After the last round, {times}: another hospital's own model is received, and the same figures for "
                "it leave ({size}){noise}.",
                times=often,
                **said,
            )
    return say(
        "{times}: how many patients with and without the finding got which score (a histogram of {bins} cells for "
        "each, {size}){noise}.",
        times=often,
        bins=terms.bins,
        **said,
    )


def _size(leaving: Leaving) -> str:
    return say(
        "{numbers} in {tensors}, {bytes} bytes",
        numbers=say_many("{n} number", "{n} numbers", leaving.numbers),
        tensors=say_many("{n} tensor", "{n} tensors", leaving.tensors),
        bytes=number(leaving.bytes, ","),
    )


def _answers(document: StudyDocument, size: str, noise: str) -> list[str]:
    """What leaves of questions with other answers than yes or no, a sentence each; the last one with their size."""
    lines = []
    for name, answer in document.evaluation.answers.items():
        question = say("the task's question") if name == QUESTION else name
        rows, columns = answer.cells
        if answer.kind == "measure":
            line = say(
                "After the last round: of {question}, how many patients had which measured value, which value from the "
                "model, and which difference between them (three histograms of {cells} cells)",
                question=question,
                cells=columns,
            )
        elif answer.kind == "classes":
            line = say(
                "After the last round: of {question}, how many patients of each of {rows} classes were told which; and "
                "how many of each class, and of the others, got which score for it",
                question=question,
                rows=rows,
            )
        else:
            line = say(
                "After the last round: of {question}, how many patients of each of {rows} grades were told which",
                question=question,
                rows=rows,
            )
        lines.append(line)
    all_of_these = say(" ({size} for all of these){noise}", size=size, noise=noise)
    return [say("{sentence}.", sentence=line) for line in (*lines[:-1], lines[-1] + all_of_these)]


def _is_sum(document: StudyDocument, part: Part) -> bool:
    sums = document.secure_sum
    return sums is not None and (sums.steps if part == "training" else sums.figures)


def _is_noised(review: Review, part: Part) -> str:
    cost = next(cost for cost in review.costs if cost.part == part)
    return say(", WITHOUT noise") if cost.granted is None else say(", with noise on every number")


def rounds(count: int) -> str:
    """So many rounds, in words."""
    return say_many("{n} round", "{n} rounds", count)


def times(count: int) -> str:
    """So many times, in words."""
    return say_many("{n} time", "{n} times", count)
