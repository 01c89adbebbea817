"""Everything that can go wrong at the coordinator, by name.

StudyError
├── HospitalNotReady     a hospital of this machine cannot take part: its images, labels or settings are wrong
├── RoundFailed          fewer hospitals than the quorum gave a usable answer; names each and its stage
├── TooFewHospitals      somebody would have to train more often than the study's document says
├── CannotCombine        the strategy cannot make a model of the updates: too few, too many to hold, far too long
├── CheckpointDamaged    a checkpoint does not hold what was written
├── StudyBusy            another process works on the study
├── TrackingFailed       the results store cannot be used
├── ServerMisconfigured  the server's folder, its settings, or a file or program that it needs
├── ServerUnreachable    the server does not answer, or does not let this researcher in
├── NotSigned            nobody who may ask for a study has signed what a run brings
└── NotAdmitted          a hospital is not, or is already, among those that were admitted
"""

from __future__ import annotations

from collections.abc import Mapping


class StudyError(Exception):
    """Base of all; the text says what, where, why and the remedy."""


class HospitalNotReady(StudyError):
    pass


class RoundFailed(StudyError):
    def __init__(self, study: str, round: int, stage: str, needed: int, dropped: Mapping[str, str]) -> None:
        told = "\n".join(f"  {hospital}: {reason}" for hospital, reason in sorted(dropped.items()))
        super().__init__(
            f"study {study}, round {round}, {stage}: {needed} usable answer(s) are needed. Dropped:\n{told}\n"
            "What was committed is kept: mend the hospitals, then start the same command again. "
            "federation.quorum says how many may be missing."
        )
        self.round, self.stage, self.dropped = round, stage, dict(dropped)


class TooFewHospitals(StudyError):
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


class NotAdmitted(StudyError):
    pass
