"""Which series of an examination are read: every stack is judged whole, and only then is one chosen.

Whoever may be read at all is a volume and keeps the contract with every slice. Of those the first is taken by, in this
order: on how many segmentations were drawn on it, how many lie within it, how few of the contract's rules warn of it,
how many slices it has, how thin they are, and its SeriesInstanceUID, so that every ingest chooses alike. Why the others
were not taken is counted.

Tested in ``tests/client/sources/files/test_cases.py``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from client.reading.contract import Judgement, merged
from client.reading.slices import Slice
from client.reading.stack import Stack
from client.reading.stacks import arrange
from client.sources.headers import same_pixels
from client.sources.labels.scan_outlines import Segmentation, covers, fitted
from client.sources.record import NOTE, OTHER_SERIES, Unreadable
from tasks import contract as contracts
from tasks.task import Task

_ORDER = ("OUTLINED_ELSEWHERE", "OUTLINED_ELSEWHERE", "MORE_WARNINGS", "FEWER_SLICES", "THICKER_SLICES", "JUST_AS_GOOD")


@dataclass(frozen=True)
class JudgedSlice:
    """A slice, the contract's judgement of it, and its series."""

    slice: Slice
    series: str
    judgement: Judgement


@dataclass(frozen=True)
class Candidate:
    """A stack that might be read as a sequence of the task.

    Attributes:
        stack: its slices.
        series: SeriesInstanceUID.
        judgement: the contract's, of all its slices: what one of them breaks it breaks.
        drawn, within: of how many segmentations the frames lie on its slices, and between its ends.
    """

    stack: Stack
    series: str
    judgement: Judgement
    drawn: int
    within: int

    @property
    def problem(self) -> str:
        """Why it may not be read, in one word; "" if it may."""
        if self.stack.refusal is not None:
            return str(self.stack.refusal.reason)
        return "" if self.judgement.conforms else f"RULE:{self.judgement.rejected[0]}"

    @property
    def rank(self) -> tuple[int, int, int, int, float, str]:
        """The smaller, the better; each element is called in ``_ORDER``."""
        slices, warned = len(self.stack.slices), len(self.judgement.warned)
        return -self.drawn, -self.within, warned, -slices, round(self.stack.thickness_mm, 3), self.series


def candidates(slices: Iterable[JudgedSlice], segmentations: Sequence[Segmentation], task: Task) -> list[Candidate]:
    """All stacks of some series, the longest first."""
    of_series: defaultdict[str, list[JudgedSlice]] = defaultdict(list)
    for one in slices:
        of_series[one.series].append(one)
    found = []
    for series in sorted(of_series):
        judged = {(one.slice.path, one.slice.frame): one.judgement for one in of_series[series]}
        for stack in arrange((one.slice for one in of_series[series]), same_pixels):
            judgements = {judged[one.path, one.frame] for one in stack.slices}
            found.append(_candidate(stack, series, merged(contracts.of_task(task.name), *judgements), segmentations))
    return sorted(found, key=lambda candidate: -len(candidate.stack.slices))


def _candidate(stack: Stack, series: str, judgement: Judgement, segmentations: Sequence[Segmentation]) -> Candidate:
    if stack.refusal is not None:
        return Candidate(stack, series, judgement, 0, 0)
    drawn = sum(fitted(one, stack) is not None for one in segmentations)
    return Candidate(stack, series, judgement, drawn, sum(covers(stack, one) for one in segmentations))


def choose(of_sequence: Mapping[str, Sequence[Candidate]], first: str, lost: Counter[str]) -> dict[str, Candidate]:
    """The best candidate of each sequence that has one in the space of the first sequence's.

    Where none keeps the contract, the best that breaks it is taken: the examination is refused with the rule's name,
    and not for want of a series.

    Args:
        of_sequence: see ``candidates``; empty for a sequence without a series.
        first: the sequence that an examination must have.
        lost: counts what is left out, and with the prefixes ``OTHER_SERIES`` and ``NOTE`` what is told.

    Raises:
        Unreadable: ``NO_SERIES_OF_<first>``, or why its longest stack is no volume.
    """
    best = _best(of_sequence[first])
    if best is None:
        raise Unreadable(_why_none(of_sequence[first]) or f"NO_SERIES_OF_{first.upper()}")
    chosen = {first: best}
    for name, some in of_sequence.items():
        if name == first:
            continue
        near = _best([one for one in some if in_one_space(one.stack, best.stack)])
        if near is not None:
            chosen[name] = near
        elif _best(some) is not None:
            lost["SERIES_IN_OTHER_SPACE"] += 1
        elif some:
            lost[f"SERIES_{_why_none(some)}"] += 1
    for name, taken in chosen.items():
        _tell(taken, of_sequence[name], lost)
    return chosen


def in_one_space(one: Stack, other: Stack) -> bool:
    """Whether positions of two stacks may be compared, as far as they say."""
    return len({one.frame_of_reference, other.frame_of_reference} - {""}) <= 1


def _best(some: Iterable[Candidate]) -> Candidate | None:
    volumes = [one for one in some if one.stack.refusal is None]
    return min(volumes, key=lambda one: (len(one.judgement.rejected), one.rank), default=None)


def _why_none(some: Sequence[Candidate]) -> str:
    return next((str(one.stack.refusal.reason) for one in some if one.stack.refusal is not None), "")


def _tell(taken: Candidate, some: Sequence[Candidate], lost: Counter[str]) -> None:
    lost.update(f"{NOTE}{note}" for note in taken.stack.notes)
    if taken.stack.left_out:
        lost["SLICES_LEFT_OUT"] += taken.stack.left_out
    lost.update(f"{OTHER_SERIES}{_why_not(one, taken)}" for one in some if one is not taken)


def _why_not(one: Candidate, taken: Candidate) -> str:
    if one.problem:
        return one.problem
    pairs = zip(_ORDER, one.rank, taken.rank, strict=True)
    return next((word for word, mine, best in pairs if mine != best), "JUST_AS_GOOD")
