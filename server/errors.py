"""Everything that can go wrong at the coordinator, by name.

StudyError
├── HospitalNotReady     a hospital on this machine cannot take part: its images, labels or settings are wrong
├── RoundFailed          fewer hospitals than the quorum gave a usable answer; names the others, and why
│   └── TrainingDiverged   at every hospital, so that it is a matter of the study's settings
├── TooFewHospitals      a hospital would have to train more often than the study document allows
├── UninformativeStudy   its figures would tell nothing: the noise would hide the patients of every hospital
├── CannotCombine        the strategy cannot combine the updates: too few, too many to hold, or far too long
├── CheckpointDamaged    a checkpoint does not hold what was written
├── StudyBusy            another process works on the study
├── TrackingFailed       the results store cannot be used
├── ServerMisconfigured  the server's folder, its settings, or a file or program that it needs
├── ServerUnreachable    the server does not answer, or refuses this researcher
├── NotSigned            a run brings a study without the signature of somebody who may submit one
├── NotAllowed           somebody's role does not allow it, such as acting on another one's study
├── StudyStopped         somebody has ended the study for good
├── NotAdmitted          a hospital is not admitted, or already is
└── BackupRefused        a backup is not complete, was changed, or would replace something

Tested in ``tests/server/test_launch.py``.
"""

from __future__ import annotations

from collections.abc import Mapping


class StudyError(Exception):
    """Base class; the text says what, where, why and the remedy."""


class HospitalNotReady(StudyError):
    pass


class RoundFailed(StudyError):
    def __init__(self, study: str, round: int, stage: str, needed: int, dropped: Mapping[str, str]) -> None:
        super().__init__(
            f"study {study}, round {round}, {stage}: {needed} usable answer(s) are needed. Dropped:\n"
            f"{_reasons(dropped)}\n"
            "All committed rounds are kept: fix the hospitals, then run the same command again. "
            "federation.quorum sets how many may be missing."
        )
        self.round, self.stage, self.dropped = round, stage, dict(dropped)


class TrainingDiverged(RoundFailed):
    def __init__(self, study: str, round: int, dropped: Mapping[str, str], training: str) -> None:
        super().__init__(study, round, "train", 1, dropped)
        self.args = (
            f"study {study}, round {round}, train: training has diverged at every hospital:\n{_reasons(dropped)}\n"
            f"No hospital is to blame, the steps are too long: {training}. Start another study with a lower "
            "training.learning_rate, or with training.clip_always=true, which limits what each patient can change; a "
            "deep network learns at much lower rates than a linear head.",
        )


def _reasons(dropped: Mapping[str, str]) -> str:
    return "\n".join(f"  {hospital}: {reason}" for hospital, reason in sorted(dropped.items()))


class TooFewHospitals(StudyError):
    pass


class UninformativeStudy(StudyError):
    pass


class CannotCombine(StudyError):
    pass


class CheckpointDamaged(StudyError):
    pass


class StudyBusy(StudyError):
    pass


class TrackingFailed(StudyError):
    pass


class ServerMisconfigured(StudyError):
    pass


class ServerUnreachable(StudyError):
    pass


class NotSigned(StudyError):
    pass


class NotAllowed(StudyError):
    pass


class StudyStopped(StudyError):
    pass


class NotAdmitted(StudyError):
    pass


class BackupRefused(StudyError):
    pass
