"""Rounds that too few have answered are asked for again; refusals are not."""

from __future__ import annotations

import numpy as np
import pytest

from server.app import RegisterChanged, again
from server.errors import CannotCombine, RoundFailed, TrainingDiverged
from server.rounds.state import StudyState

DONE = StudyState({"w": np.zeros(1, np.float32)})


class Attempts:
    """Fails as the script says, then succeeds."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.made = list(failures), 0

    def __call__(self) -> StudyState:
        self.made += 1
        if self.failures:
            raise self.failures.pop(0)
        return DONE


def failed(round: int, *reasons: str) -> RoundFailed:
    return RoundFailed("demo-1", round, "train", 2, {f"h{n}": reason for n, reason in enumerate(reasons)})


def test_a_round_is_asked_for_again_as_often_as_allowed() -> None:
    attempts = Attempts(failed(1, "train: no answer within 5 s"), failed(1, "train: its client failed"))
    assert again(attempts, 3, pause_s=0) is DONE
    assert attempts.made == 3


def test_then_the_study_fails() -> None:
    attempts = Attempts(*(failed(2, "train: no answer") for _ in range(3)))
    with pytest.raises(RoundFailed):
        again(attempts, 3, pause_s=0)
    assert attempts.made == 3


def test_every_round_has_attempts_of_its_own() -> None:
    attempts = Attempts(*(failed(number, "train: no answer") for number in (1, 1, 2, 2, 3, 3)))
    assert again(attempts, 3, pause_s=0) is DONE


def test_who_refuses_is_not_asked_again() -> None:
    attempts = Attempts(failed(1, "train: refused with NOT_APPROVED", "train: refused with STOPPED"))
    with pytest.raises(RoundFailed):
        again(attempts, 3, pause_s=0)
    assert attempts.made == 1


def test_what_has_diverged_would_diverge_again() -> None:
    attempts = Attempts(TrainingDiverged("demo-1", 1, {"h0": "train: refused with UPDATE_NOT_FINITE"}, "rate 8"))
    with pytest.raises(TrainingDiverged, match="No hospital is to blame"):
        again(attempts, 3, pause_s=0)
    assert attempts.made == 1


def test_one_who_did_not_refuse_may_do_better() -> None:
    attempts = Attempts(failed(1, "train: refused with NOT_APPROVED", "train: no answer within 5 s"))
    assert again(attempts, 3, pause_s=0) is DONE


def test_other_errors_pass() -> None:
    with pytest.raises(CannotCombine):
        again(Attempts(CannotCombine("too few")), 3, pause_s=0)


def test_a_change_of_the_register_is_no_failed_attempt() -> None:
    attempts = Attempts(*(RegisterChanged() for _ in range(9)), failed(1, "train: no answer"))
    assert again(attempts, 2, pause_s=0) is DONE
    assert attempts.made == 11
