"""Which hospitals are asked to train in a round, and how often at most.

A hospital plans its noise for as many rounds as the study document says that it will train in. So the document states a
number, and the server keeps to it: hospitals take turns, those that were asked least first, and none is asked more
often. With half of the hospitals per round, each plans for half of the rounds, and the same epsilon needs about
1 / sqrt(2) of the noise per step. Being asked is what counts, not whether the answer is used: a hospital that answers
too late has spent its privacy as well, and that is what over-selection costs.

Where late updates are accepted (``staleness.py``), a hospital that still works on an earlier order is asked after the
others. Where all hospitals train in every round, so that none has to make up for a turn, it is not asked at all as long
as another one can be.

Which hospitals take part in a round is public here, so there is no amplification by sampling.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

from conf.schema.federation import named_hospitals
from conf.schema.strategy import Cyclic
from conf.schema.study import Study
from server.errors import TooFewHospitals
from server.rounds.state import RoundRecord

_ROUNDING = 1e-9


def asked_at_most(study: Study) -> int:
    """In how many rounds one hospital is asked to train at most: for the study document.

    Where the configuration names the hospitals, whole hospitals are counted, so that 0.67 of three is two of three.
    """
    rounds, named = study.federation.rounds, len(named_hospitals(study.federation))
    fraction = _count(study, named) / named if named else _invited_fraction(study)
    return max(1, min(rounds, math.ceil(rounds * fraction - _ROUNDING)))


def invited(
    study: Study, hospitals: Sequence[str], rounds: Sequence[RoundRecord], of: int, busy: Sequence[str] = ()
) -> list[str]:
    """Which hospitals train in the round after ``rounds``, in the order of ``hospitals``.

    The choice is the same after every restart, so that an order that was already answered is the same order.

    Args:
        hospitals: those that the strategy would ask.
        of: how many the study has.
        busy: those of ``hospitals`` that still work on an earlier order.

    Raises:
        TooFewHospitals: so many must be asked that one of them would be asked too often.
    """
    most, number = asked_at_most(study), len(rounds) + 1
    if most == study.federation.rounds:
        hospitals = [name for name in hospitals if name not in busy] or hospitals
    count = min(_count(study, of), len(hospitals))
    asked = Counter(name for record in rounds for name in record.invited)
    willing = sorted(
        (name for name in hospitals if asked[name] < most),
        key=lambda name: (asked[name], name in busy, _lot(study.seed, number, name)),
    )
    if len(willing) < count:
        raise TooFewHospitals(
            f"round {number} needs {count} of {of} hospitals, but the study document lets each be asked "
            f"{most} time(s) in {study.federation.rounds} rounds: invite more hospitals, or start a study with a "
            "larger federation.participation"
        )
    chosen = set(willing[:count])
    return [name for name in hospitals if name in chosen]


def wanted(study: Study, hospitals: int) -> int:
    """How many usable updates close a round with so many hospitals."""
    if isinstance(study.strategy, Cyclic):
        return 1
    return max(1, math.floor(hospitals * study.federation.participation + _ROUNDING))


def _count(study: Study, hospitals: int) -> int:
    """How many of so many hospitals are invited."""
    return max(1, math.floor(hospitals * _invited_fraction(study) + _ROUNDING))


def _invited_fraction(study: Study) -> float:
    federation, named = study.federation, len(named_hospitals(study.federation))
    if isinstance(study.strategy, Cyclic):
        return 1 / named if named else federation.participation
    return min(1.0, federation.participation * (1 + federation.over_selection))


def _lot(seed: int, round: int, name: str) -> str:
    """A random draw that can be repeated, so that it need not be stored."""
    return hashlib.sha256(f"{seed} {round} {name}".encode()).hexdigest()
