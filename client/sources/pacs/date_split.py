"""A search for studies whose answer is whole.

Archives limit how much they answer. Some say so (a status after the last match, Warning 299), some do not, and a short
answer looks like a small archive. So no answer is believed before the halves of its dates were asked for: if they find
nothing more, it is whole; if they do, each half is completed in the same way.

Tested in ``tests/client/sources/pacs/test_walk.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta

from client.errors import AnswerIncomplete
from client.sources.pacs.search import Match, Search, SearchAnswer, value

_FIRST, _DAY = date(1980, 1, 1), timedelta(days=1)
"""No digital archive is older; only for halving a range without a beginning."""


@dataclass(frozen=True)
class Days:
    """A range of StudyDate, both ends included; ``None`` for open."""

    first: date | None = None
    last: date | None = None

    def text(self) -> str:
        """As DICOM matches it (PS3.4 C.2.2.2.5), "" for any date."""
        if self.first is None and self.last is None:
            return ""
        return "-".join("" if day is None else f"{day:%Y%m%d}" for day in (self.first, self.last))

    def parts(self, days: list[date]) -> list[Days]:
        """Two or three ranges that make up this one, each with fewer of these days, as even as may be; none if it is a
        single day."""
        if self.first is not None and self.first == self.last:
            return []
        if days and min(days) == max(days):
            ends = [days[0] - _DAY, days[0]]
        elif days:
            middle = sorted(days)[(len(days) - 1) // 2]
            ends = [middle if middle < max(days) else max(day for day in days if day < middle)]
        else:
            first, last = self.first or _FIRST, self.last or date.today() + 366 * _DAY
            ends = [first + (last - first) // 2]
        return list(self._split(ends))

    def _split(self, ends: list[date]) -> Iterator[Days]:
        firsts = [self.first, *(end + _DAY for end in ends)]
        for first, end in zip(firsts, [*ends, self.last], strict=True):
            first = first if self.first is None or first is None else max(first, self.first)
            if first is None or end is None or first <= end:
                yield Days(first, end)


def whole(search: Search, keys: Mapping[str, str], days: Days) -> list[Match]:
    """All studies with these keys in these days.

    Raises:
        AnswerIncomplete: the archive says that it leaves some out, and dates do not narrow the search any further.
        ArchiveUnreachable, ArchiveRefused: as the search.
    """
    return list(_completed(search, keys, days, _asked(search, keys, days)).values())


def _asked(search: Search, keys: Mapping[str, str], days: Days) -> SearchAnswer:
    return search.studies({**keys, **({"StudyDate": days.text()} if days.text() else {})})


def _completed(search: Search, keys: Mapping[str, str], days: Days, answer: SearchAnswer) -> dict[str, Match]:
    found, told = _by_uid(answer), _days(answer)
    if not answer.cut and len(told) < 2:
        return found
    parts = days.parts(told)
    if not parts:
        return _believed(answer, found, f"of {days.text()}")
    answers = [_asked(search, keys, part) for part in parts]
    others: dict[str, Match] = {}
    for one in answers:
        others |= _by_uid(one)
    if any(_outside(one, part) for one, part in zip(answers, parts, strict=True)):  # it does not search by dates
        return _believed(answer, found | others, "although it does not search by StudyDate")
    if not answer.cut and others.keys() <= found.keys() and not any(one.cut for one in answers):
        return found
    for one, part in zip(answers, parts, strict=True):
        found |= _completed(search, keys, part, one)
    return found


def _believed(answer: SearchAnswer, found: dict[str, Match], which: str) -> dict[str, Match]:
    if answer.cut:
        raise AnswerIncomplete(
            f"the archive leaves out examinations {which}: {answer.cut}. Its limit on answers must be raised, or our "
            "search exempted from it; or narrow the source's scope by `accessions`, `studies` or `modalities`. Nothing "
            "was deleted here"
        )
    return found


def _by_uid(answer: SearchAnswer) -> dict[str, Match]:
    return {value(match, "StudyInstanceUID"): match for match in answer.matches}


def _days(answer: SearchAnswer) -> list[date]:
    days = []
    for match in answer.matches:
        with suppress(ValueError):
            days.append(date.fromisoformat(value(match, "StudyDate")))
    return days


def _outside(answer: SearchAnswer, days: Days) -> bool:
    first, last = days.first or date.min, days.last or date.max
    return any(not first <= day <= last for day in _days(answer))
