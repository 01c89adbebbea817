"""One secure sum: everybody on the roster answers, or nothing is learned and another attempt begins.

    keys      hospitals whose sum key is not known are asked for it; who shows one is there
    attempt   its number and roster are noted, then the order goes out
    sum       words are added as they arrive. Pads cancel when the last one is in; before that the sum is random bits
    void      one answer is missing or cannot be used: the words are dropped, and the attempt stays charged at those who
              had reserved it. The next one leaves the hospital out if enough others are there

Single parts are never seen here, so they are not checked but for form: a hospital whose numbers are wrong ruins the
sum. A sum that is longer than honest ones can be is void as well, without a name.

Tested in ``tests/federation/test_shared_noise.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from server.errors import RoundFailed
from server.rounds import claimed_privacy
from server.rounds.attempts import Attempts
from server.rounds.exchange import Answer, Channel, R, exchange
from server.rounds.state import Roster
from tasks.protocol import secure_sum, study, sum_key
from tasks.protocol.secure_sum import WORDS, Grid
from tasks.protocol.study import SecureSumTerms
from tasks.protocol.wire import (
    ErrorCode,
    EvaluateOrder,
    EvaluateReport,
    KeyOrder,
    KeyReport,
    SumAttempt,
    SurveyReport,
    TrainOrder,
)

_MOST_VOID = 8
"""Attempts of one round; a hospital that is killed in each of them would cost the others all that is spare."""
_KEYS_S, _AGAIN_S = 60.0, 2.0
"""How long keys are waited for: at first and after a failure, and those of hospitals that were missing before."""
_FINAL = tuple(f"refused with {code}" for code in (ErrorCode.BUDGET_EXHAUSTED, ErrorCode.NOT_PERMITTED))
_USED = f"refused with {ErrorCode.TAG_USED}"


@dataclass(frozen=True)
class SumRequest(Generic[R]):
    """What is to be added up.

    Attributes:
        what: ``train`` or ``evaluate``, for messages and the numbers of attempts.
        order: the order of an attempt.
        values: how many each hospital sends.
        most: the most that one patient changes.
        implausible: (sum, its noise multiplier, names on the roster) -> why honest hospitals do not make such a sum; ""
            if they may.
    """

    what: str
    round: int
    order: Callable[[SumAttempt], TrainOrder | EvaluateOrder]
    kind: type[R]
    values: int
    most: float
    implausible: Callable[[NDArray[np.float64], float, list[str]], str]


@dataclass(frozen=True)
class SecureSum(Generic[R]):
    """A sum, and how it came about.

    Attributes:
        total: float64 of shape (values,).
        noise: noise multiplier of the sum.
        answers: of those whose parts are in it.
        left_out: why the others' are not.
        void: what ended each attempt before.
    """

    total: NDArray[np.float64]
    noise: float
    answers: dict[str, Answer[R]]
    left_out: dict[str, str]
    void: list[str]


class _Void(Exception):
    """An attempt failed: because of whom ("" for nobody who is known), and why."""

    def __init__(self, hospital: str, reason: str) -> None:
        super().__init__(reason)
        self.hospital, self.reason = hospital, reason


def add_up(channel: Channel, roster: Roster, attempts: Attempts, asked: SumRequest[R]) -> SecureSum[R]:
    """Make attempts until one succeeds.

    Raises:
        RoundFailed: fewer hospitals are left than the study's terms need, or attempt after attempt fails.
    """
    terms = terms_of(roster)
    void: list[str] = []
    left_out: dict[str, str] = {}
    begun = attempts.begun(asked.what, asked.round)
    while len(void) < _MOST_VOID:
        if begun is None:
            _gather(channel, roster, attempts, asked.round, left_out)
        attempt: SumAttempt = _begin(roster, attempts, asked, left_out) if begun is None else begun
        begun = None
        try:
            if strangers := [each.hospital for each in attempt.roster if each.hospital not in roster.nodes]:
                raise _Void("", f"{', '.join(strangers)} no longer takes part")
            summed = _tried(channel, roster, attempt, asked)
            return replace(summed, left_out=left_out | attempts.refused, void=[*_before(attempt, void), *void])
        except _Void as failure:
            whose = f"{failure.hospital}: " if failure.hospital else ""
            void.append(f"attempt {attempt.number}: {whose}{failure.reason}")
            _leave_out(attempts, failure, left_out, len(attempt.roster) > terms.least_hospitals)
    reasons = {f"attempt {number}": reason for number, reason in enumerate(void, start=1)}
    raise RoundFailed(roster.document.name, asked.round, asked.what, terms.least_hospitals, reasons | left_out)


def _before(attempt: SumAttempt, void: list[str]) -> list[str]:
    """What is said of attempts that another process of this server made before it ended."""
    others = attempt.number - 1 - len(void)
    return [f"{others} earlier attempt(s): this server was interrupted"] if others > 0 else []


def terms_of(roster: Roster) -> SecureSumTerms:
    """The study's terms of secure sums.

    Raises:
        ValueError: it has none.
    """
    if roster.document.secure_sum is None:
        raise ValueError(f"{roster.document.name} has no secure sums")
    return roster.document.secure_sum


def _leave_out(attempts: Attempts, failure: _Void, left_out: dict[str, str], can_spare: bool) -> None:
    """What follows from a failure for the next attempt: its hospital must show its key again, and is left out of this
    round if it can be spared. One that was killed over the attempt is there again."""
    if not failure.hospital:
        return
    attempts.keys.pop(failure.hospital, None)
    if failure.reason.startswith(_FINAL):
        attempts.refused[failure.hospital] = failure.reason
    elif can_spare and not failure.reason.startswith(_USED):
        left_out[failure.hospital] = failure.reason


def _begin(roster: Roster, attempts: Attempts, asked: SumRequest[R], left_out: dict[str, str]) -> SumAttempt:
    needed = terms_of(roster).least_hospitals
    there = [attempts.keys[name] for name in roster.nodes if name in attempts.keys and name not in left_out]
    if len(there) < needed:
        missing = {name: "did not show its sum key" for name in roster.nodes if name not in attempts.keys}
        reasons = missing | attempts.refused | left_out
        raise RoundFailed(roster.document.name, asked.round, asked.what, needed, reasons)
    return attempts.begin(asked.what, asked.round, there)


def _gather(channel: Channel, roster: Roster, attempts: Attempts, round: int, left_out: dict[str, str]) -> None:
    """Ask those for their keys whose keys are not known."""
    asked = {
        name: node
        for name, node in roster.nodes.items()
        if name not in attempts.keys and name not in left_out and name not in attempts.refused
    }
    if not asked:
        return
    enough = len(roster.nodes) - len(asked) >= terms_of(roster).least_hospitals
    hurried = replace(channel, deadline_s=min(channel.deadline_s, _AGAIN_S if enough else _KEYS_S))
    order, digest = KeyOrder(roster.document, round), study.digest(roster.document)
    for answer in exchange(hurried, replace(roster, nodes=asked), order, KeyReport):
        problem = answer.problem or _unsigned(answer, roster, digest)
        if problem or answer.report is None:
            left_out[answer.hospital] = problem
        else:
            attempts.keys[answer.hospital] = answer.report.key


def _unsigned(answer: Answer[KeyReport], roster: Roster, digest: str) -> str:
    """Why a key would be refused by the other hospitals; "" if it would not."""
    if answer.report is None:
        return "no report"
    key, pinned = answer.report.key, terms_of(roster).peers.get(answer.hospital)
    try:
        signed_by = sum_key.fingerprint_of(key, digest)
    except sum_key.BadSumKey as error:
        return str(error)
    if key.hospital != answer.hospital or signed_by != pinned:
        return f"its sum key is {key.hospital}'s, signed by {signed_by}; the study names {pinned}"
    return ""


def _tried(channel: Channel, roster: Roster, attempt: SumAttempt, asked: SumRequest[R]) -> SecureSum[R]:
    """One attempt.

    Raises:
        _Void: it failed.
    """
    names = [each.hospital for each in attempt.roster]
    taking = _Taking(roster, asked, names)
    part = replace(roster, nodes={name: roster.nodes[name] for name in names})
    with closing(exchange(channel, part, asked.order(attempt), asked.kind)) as answers:
        for answer in answers:
            taking.take(answer)
    if missing := [name for name in names if name not in taking.answers]:
        raise _Void(missing[0], "gave no answer")
    return taking.sum()


@dataclass
class _Taking(Generic[R]):
    """The parts of one attempt as they arrive."""

    roster: Roster
    asked: SumRequest[R]
    names: list[str]
    answers: dict[str, Answer[R]] = field(default_factory=dict)
    _noise: float = 0.0
    _words: secure_sum.Words | None = None

    def take(self, answer: Answer[R]) -> None:
        """Add a hospital's words.

        Raises:
            _Void: there are none, or they cannot be added.
        """
        report = answer.report
        if report is None or isinstance(report, KeyReport | SurveyReport):
            raise _Void(answer.hospital, answer.problem or "no report")
        noise = report.noise if isinstance(report, EvaluateReport) else report.noise_multiplier
        words = report.arrays.get(WORDS)
        if problem := self._unusable(report, noise, words):
            raise _Void(answer.hospital, problem)
        assert words is not None
        if self._words is None:
            self._words, self._noise = words.copy(), noise
        else:
            self._words += words
        self.answers[answer.hospital] = answer

    def _unusable(self, report: R, noise: float, words: secure_sum.Words | None) -> str:
        document, scores = self.roster.document, isinstance(report, EvaluateReport)
        epsilon = document.evaluation.epsilon if scores else document.privacy.epsilon
        if isinstance(report, KeyReport) or words is None or len(report.arrays) != 1:
            return f"it must bring {WORDS} alone"
        if problem := claimed_privacy.unsound(noise, report, epsilon, document.privacy.delta):
            return problem
        if self._words is not None and noise != self._noise:
            return f"it tells the noise {noise:g}, the others {self._noise:g}: it has another release or other terms"
        dtype, shape = self._grid(noise).dtype, (self.asked.values,)
        if words.dtype != dtype or words.shape != shape:
            return f"its words are {words.dtype} {words.shape}, not {dtype} {shape}"
        return ""

    def _grid(self, noise: float) -> Grid:
        sizes = self.roster.document.sizes
        return secure_sum.grid(
            noise,
            self.asked.most,
            hospitals=len(self.names),
            colluding=terms_of(self.roster).colluding,
            patients=sum(sizes[name] for name in self.names),
        )

    def sum(self) -> SecureSum[R]:
        """The sum, once everybody's words are in.

        Raises:
            _Void: it is none that honest hospitals make.
        """
        assert self._words is not None
        total = secure_sum.decode(self._words, self._grid(self._noise))
        if problem := self.asked.implausible(total, self._noise, self.names):
            raise _Void("", problem)
        return SecureSum(total, self._noise, self.answers, {}, [])
