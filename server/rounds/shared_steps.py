"""What secure sums are sums of: the gradients of one step, and the histograms of one evaluation.

A step. Each hospital sends the sum of its sampled patients' clipped gradients; the server divides the sum of all by the
expected number of patients, which follows from public sizes, and moves the model against it:

    update = - rate * sum / (q * N)          then the strategy's step: SGD, momentum, FedOpt's adaptive ones

That is DP-FedSGD: the model and its momentum are the server's, and hospitals keep nothing.

Tested in ``tests/federation/test_shared_noise.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from server.rounds.attempts import Attempts
from server.rounds.evaluation import Evaluated
from server.rounds.exchange import Answer, Channel
from server.rounds.secure_sums import SecureSum, SumRequest, add_up, terms_of
from server.rounds.state import EVERYBODY, HospitalRound, Roster
from server.strategy.local_sgd import expected_patients, honest_lengths
from tasks.protocol import wire
from tasks.protocol.secure_sum import share
from tasks.protocol.wire import Arrays, EvaluateOrder, EvaluateReport, SumAttempt, TrainOrder, TrainReport

_FAILURE = 1e-9
_UNDECLARED, _NOISE = 4.0, 64.0
"""A histogram's cell has at most so many times the public sizes in patients, and so many standard deviations."""


@dataclass(frozen=True)
class SharedStep:
    """One step of all hospitals together.

    Attributes:
        update: by which the model would move at a server learning rate of 1, float32.
        hospitals: those whose parts are in it.
        left_out: why the others' are not.
        void: what ended each attempt before.
    """

    update: Arrays
    hospitals: dict[str, HospitalRound]
    left_out: dict[str, str]
    void: list[str]


def step(channel: Channel, roster: Roster, attempts: Attempts, weights: Arrays, round: int) -> SharedStep:
    """Add one step's gradients up.

    Raises:
        RoundFailed: as ``server.rounds.secure_sums.add_up``.
    """
    document = roster.document

    def order(attempt: SumAttempt) -> TrainOrder:
        return TrainOrder(document, round, weights, attempt=attempt)

    def implausible(total: NDArray[np.float64], noise: float, names: list[str]) -> str:
        longest, length = longest_sum(roster, noise, names, len(total)), float(np.linalg.norm(total))
        if length <= longest:
            return ""
        return (
            f"the sum has length {length:.3g}, honest ones at most {longest:.3g}: somebody's numbers are wrong, or "
            "rosters differ; nobody can see whose"
        )

    values = sum(value.size for value in weights.values())
    asked = SumRequest(
        "train", round, order, TrainReport, values=values, most=document.privacy.clip_norm, implausible=implausible
    )
    summed = add_up(channel, roster, attempts, asked)
    patients = sum(document.sizes[name] for name in summed.answers)
    rate = document.training.rate_in(round, document.rounds)
    move = summed.total * (-rate / expected_patients(document.training, patients))
    hospitals = {name: _figures(answer) for name, answer in summed.answers.items()}
    return SharedStep(_shaped(move, weights), hospitals, summed.left_out, summed.void)


def longest_sum(roster: Roster, noise: float, names: list[str], values: int) -> float:
    """A length that no sum of honest hospitals exceeds: as ``local_sgd.honest_lengths`` bounds one hospital's step, of
    all patients together and with everybody's share of the noise."""
    document = roster.document
    terms, patients = replace(document.training, learning_rate=1.0), sum(document.sizes[name] for name in names)
    everybody = share(noise, len(names), terms_of(roster).colluding) * math.sqrt(len(names))
    lengths = honest_lengths(terms, document.privacy.clip_norm, everybody, patients, values, failure=_FAILURE)
    return lengths.longest * expected_patients(terms, patients)


def evaluated_together(
    channel: Channel, roster: Roster, attempts: Attempts, weights: Arrays, round: int
) -> tuple[dict[str, Evaluated], list[str]]:
    """A model's scores on all validation patients together, as of one hospital called ``EVERYBODY``; and what ended
    attempts before. The hospitals' own entries have neither scores nor figures.

    Raises:
        RoundFailed: as ``server.rounds.secure_sums.add_up``.
    """

    def order(attempt: SumAttempt) -> EvaluateOrder:
        return EvaluateOrder(roster.document, round, weights, attempt=attempt)

    def implausible(total: NDArray[np.float64], noise: float, names: list[str]) -> str:
        most = _UNDECLARED * sum(roster.document.sizes[name] for name in names) + _NOISE * noise
        beyond = int((np.abs(total) > most).sum())
        return f"{beyond} cells of the sum are beyond {most:.3g}: somebody's numbers are wrong" if beyond else ""

    shapes = wire.due_scores(roster.document, round)
    values = sum(math.prod(shape) for shape in shapes.values())
    asked = SumRequest("evaluate", round, order, EvaluateReport, values=values, most=1.0, implausible=implausible)
    summed = add_up(channel, roster, attempts, asked)
    evaluated = {name: Evaluated(_figures(answer)) for name, answer in summed.answers.items()}
    evaluated |= {name: Evaluated(HospitalRound(), problem=why) for name, why in summed.left_out.items()}
    return evaluated | {EVERYBODY: _everybody(summed, shapes, roster)}, summed.void


def _everybody(summed: SecureSum[EvaluateReport], shapes: dict[str, tuple[int, ...]], roster: Roster) -> Evaluated:
    """The sum as the report of one hospital, with the noise that is really in it: that of all, not of the honest."""
    names, terms = sorted(shapes), terms_of(roster)
    ends = np.cumsum([math.prod(shapes[name]) for name in names])
    parts = dict(zip(names, np.split(summed.total, ends[:-1]), strict=True))
    arrays = {name: parts[name].reshape(shape) for name, shape in shapes.items()}
    noise = share(summed.noise, len(summed.answers), terms.colluding) * math.sqrt(len(summed.answers))
    first = next(answer.report for answer in summed.answers.values() if answer.report is not None)
    return Evaluated.of(replace(first, noise=noise, arrays=arrays))


def _figures(answer: Answer[TrainReport] | Answer[EvaluateReport]) -> HospitalRound:
    """What one hospital did: what it spent and sent, and no figure of its patients."""
    report = answer.report
    sent = HospitalRound(bytes_down=answer.bytes_down, bytes_up=answer.bytes_up)
    if isinstance(report, TrainReport):
        return replace(sent, epsilon=report.epsilon, epsilon_alone=report.epsilon_alone)
    if isinstance(report, EvaluateReport):
        return replace(sent, evaluation_epsilon=report.epsilon, evaluation_epsilon_alone=report.epsilon_alone)
    return sent


def _shaped(row: NDArray[np.float64], like: Arrays) -> Arrays:
    """A row of all values, in order of their tensors' names, as tensors."""
    names = sorted(like)
    ends = np.cumsum([like[name].size for name in names])
    parts = dict(zip(names, np.split(row, ends[:-1]), strict=True))
    return {name: parts[name].reshape(value.shape).astype(value.dtype) for name, value in like.items()}
