"""A study as the hospitals see it: the document that a person approves, and that every order repeats.

The document says everything that decides what an order does to patients' data: the task and its version, the contract
that images must keep, the model, how it is trained, for how many rounds, what privacy is asked for, what is evaluated,
and which release of Consilium computes it. Its digest is what ``consilium-site approve`` records. An order is this
document, a round number and weights, so nothing can be ordered that was not approved.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)

Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,119}$")]


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, config=STRICT)
class TrainingTerms:
    """How to train within one round; ``conf.schema.Training`` explains the fields."""

    steps: Count
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    sample_rate: Probability
    images_per_patient: Count


@dataclass(frozen=True, config=STRICT)
class PrivacyTerms:
    """The privacy that is asked for: (epsilon, delta) of one patient over the whole study; no epsilon asks for none."""

    epsilon: Positive | None
    delta: Annotated[float, Field(gt=0, lt=1)]
    clip_norm: Positive


@dataclass(frozen=True, config=STRICT)
class EvaluationTerms:
    """What leaves of the validation patients: ``releases`` histograms of ``bins`` cells a class, noised together to
    (epsilon, the study's delta); no epsilon asks for exact ones."""

    releases: Count
    bins: Annotated[int, Field(ge=2, le=65536)]
    epsilon: Positive | None


@dataclass(frozen=True, config=STRICT)
class StudyDocument:
    """One study, whole.

    Attributes:
        name: the study's id, never used twice.
        release: the version of Consilium that it was written for.
        task, task_version: the clinical question and ``Task.example_version``.
        contract: digest of the task's acquisition contract, see ``tasks/contract.py``.
        model: name and options of the network, as ``conf.schema`` has them.
        rounds: how many rounds of training it has at most.
    """

    name: Name
    release: Annotated[str, Field(max_length=40)]
    task: Name
    task_version: Count
    contract: Digest
    model: dict[str, str | int | float | bool]
    rounds: Count
    training: TrainingTerms
    privacy: PrivacyTerms
    evaluation: EvaluationTerms


class BadDocument(ValueError):
    """A text is not a study document; the message lists every problem."""


_ADAPTER: TypeAdapter[StudyDocument] = TypeAdapter(StudyDocument)


@cache
def release() -> str:
    """The installed version of Consilium."""
    return version("consilium-fl")


def canonical(document: StudyDocument) -> str:
    """The document as JSON with sorted keys and no spaces: equal documents, equal text."""
    values = _ADAPTER.dump_python(document)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(document: StudyDocument) -> str:
    """SHA-256 of the canonical text, as hexadecimal digits: what is approved."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def read(text: str) -> StudyDocument:
    """The document in a JSON text, however it is spaced.

    Raises:
        BadDocument: listing every field that is missing, unknown or out of range.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise BadDocument(f"not a study document: {problems}") from None
