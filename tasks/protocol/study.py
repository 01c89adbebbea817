"""A study as the hospitals see it: the document that a person approves, and that every order repeats.

The document states everything that determines what an order does with patients' data: the task and its version, the
contract that images must meet, the model, how it is trained, for how many rounds, the requested privacy, what is
evaluated, and which release of Consilium computes it. Its digest is what ``consilium-site approve`` records. An order
is this document, a round number and weights, so nothing can be ordered that was not approved.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from tasks.protocol import received, subgroups

STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)

Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
"""A rate, a length or a pull. The bounds keep all arithmetic far from float32's limits: below its normal range, for
instance, rounding would let one patient move a sum by more than the clip."""
Epsilon = Annotated[float, Field(gt=0, le=1000)]
Delta = Annotated[float, Field(ge=1e-15, lt=1)]
Probability = Annotated[float, Field(ge=1e-6, le=1)]
Count = Annotated[int, Field(ge=1, le=100_000)]
PublicSize = Annotated[int, Field(ge=1, le=10_000_000)]
Option = Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=0, le=1_000_000)] | float | bool
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,119}$")]

ADAM_BETAS = (0.9, 0.999)
"""Of gradients and of their squares, as D. Kingma and J. Ba, ICLR 2015, have them."""
LEAST_RATE = 1e-6
"""The smallest ``Positive`` number; a falling learning rate may not fall below it."""
RANGE_NOISE = 3.0
"""Noise of the first look, which only finds where scores lie, as a multiple of the noise on the histograms: it costs a
ninth of one of them."""
LEAST_NOISE, MOST_NOISE = 0.3, 1e5
"""A hospital that protects its patients plans no noise multiplier below the first, and needs none above the second."""

Attribute = Annotated[str, AfterValidator(subgroups.known)]
HexDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{4}( [0-9a-f]{4}){7}$")]
"""Of a hospital's enrolled key, see ``tasks/protocol/enrolment.py``."""


@dataclass(frozen=True, config=STRICT)
class TrainingTerms:
    """How to train within one round; ``conf/schema/training.py`` explains the fields."""

    steps: Count
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    sample_rate: Probability
    images_per_patient: Annotated[int, Field(ge=1, le=1000)]
    final_rate: Probability = 1.0
    final_noise: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    class_weights: Annotated[list[Annotated[float, Field(ge=1e-3, le=1)]], Field(max_length=20)] = Field(
        default_factory=list
    )
    optimizer: Literal["sgd", "adam"] = "sgd"
    clip_always: bool = False
    warm_up: Annotated[int, Field(ge=0, le=100_000)] = 0
    decay: Literal["geometric", "cosine"] = "geometric"

    def rate_in(self, round: int, rounds: int) -> float:
        """The learning rate of a round: rises in equal parts over ``warm_up`` rounds, then falls to ``final_rate``
        times the highest, geometrically or along half a cosine (Loshchilov and Hutter, ICLR 2017)."""
        if round <= self.warm_up:
            part = round / (self.warm_up + 1)
        else:
            done = (round - 1 - self.warm_up) / max(rounds - 1 - self.warm_up, 1)
            fallen = (1 + math.cos(math.pi * min(done, 1.0))) / 2
            cosine = self.final_rate + (1 - self.final_rate) * fallen
            part = cosine if self.decay == "cosine" else self.final_rate**done
        rate = self.learning_rate * part
        return float(min(max(rate, LEAST_RATE), self.learning_rate))  # a power's last bit may be below it

    def noise_in(self, turn: int, turns: int) -> float:
        """The factor of a hospital's noise in one of its turns (from 1): from 1 at first to ``final_noise`` at last,
        geometrically, in at most five steps: each level of noise is one more distribution to compose."""
        levels = min(turns, _LEVELS_OF_NOISE)
        return float(self.final_noise ** ((turn - 1) * levels // turns / max(levels - 1, 1)))


_LEVELS_OF_NOISE = 5


Edges = Literal["equal", "released"]
Stays = Literal["nothing", "normalisation", "head"]
Encoding = Literal["float32", "float16", "int8"]
MEASURE_ROWS = 3
"""Histograms of a measured value: of what readers say, of what is told, and of their differences."""


@dataclass(frozen=True, config=STRICT)
class MethodTerms:
    """What a hospital does in a round beside plain SGD steps on the shared model: at most one of these.

    Attributes:
        proximal: mu of FedProx, the pull towards the model that the order brought; 0 is none.
        control_variates: SCAFFOLD's; the order brings the server's c.
        stays: the part of the model that is trained at the hospital and never leaves.
        head_steps: how many of a round's steps train only the head, before the others train only the rest (FedRep).
        personal: lambda of Ditto, the pull of a second, personal model towards the shared one. It takes as many steps
            as the shared one, in addition.
        towards_mean: lambda of MR-MTL, the pull of the one model that a hospital trains, its own, towards the mean of
            all hospitals' models.
    """

    proximal: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    control_variates: bool = False
    stays: Stays = "nothing"
    head_steps: Annotated[int, Field(ge=0, le=100_000)] = 0
    personal: Positive | None = None
    towards_mean: Positive | None = None

    @model_validator(mode="after")
    def _one_at_most(self) -> Self:
        named = [self.proximal > 0, self.control_variates, self.stays != "nothing"]
        if sum([*named, self.personal is not None, self.towards_mean is not None]) > 1:
            raise ValueError("at most one of proximal, control_variates, stays, personal and towards_mean")
        if self.head_steps and self.stays != "head":
            raise ValueError("head_steps are for a head that stays")
        return self


@dataclass(frozen=True, config=STRICT)
class WireTerms:
    """How tensors are encoded; ``tasks/protocol/encoding.py`` has the encodings.

    Attributes:
        up: of updates.
        down: of models. Other than ``float32``, a model is sent as its change since the last one, and not at all when
            it is the last one; the hospital keeps it on its disk.
    """

    up: Encoding = "float32"
    down: Encoding = "float32"


@dataclass(frozen=True, config=STRICT)
class PrivacyTerms:
    """The requested privacy: (epsilon, delta) of one patient over the whole study; no epsilon requests none."""

    epsilon: Epsilon | None
    delta: Delta
    clip_norm: Positive


@dataclass(frozen=True, config=STRICT)
class AnswerTerms:
    """Tables of one question with another answer than yes or no, which leave after the last round.

    Attributes:
        kind: of its answer, see ``tasks/answers.py``.
        cells: rows and columns of its table: the reader's class or grade and the told one; of a measured value three
            rows, each a histogram of its own.
    """

    kind: Literal["classes", "grade", "measure"]
    cells: Annotated[list[Annotated[int, Field(ge=2, le=65536)]], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        rows, columns = self.cells
        if self.kind == "measure" and rows != MEASURE_ROWS:
            raise ValueError(f"a measured value has {MEASURE_ROWS} histograms, not {rows}")
        if self.kind != "measure" and not 3 <= rows == columns <= 20:
            raise ValueError(f"a table of {self.kind} has as many rows as columns, 3 to 20, not {rows} x {columns}")
        return self

    @property
    def histograms(self) -> int:
        """How many leave, each including every patient once: of classes the table and each class against all others."""
        return {"classes": 1 + self.cells[0], "grade": 1, "measure": MEASURE_ROWS}[self.kind]


@dataclass(frozen=True, config=STRICT)
class EvaluationTerms:
    """What leaves about the validation patients: ``releases`` histograms of ``bins`` cells per class, together within
    (epsilon, the study's delta); no epsilon requests exact ones. After the last round there are more histograms, each
    over all patients, within the same epsilon: one per subgroup attribute, those of secondary findings and outlines,
    tables of questions with other answers than yes or no, and those of other models.

    Attributes:
        paired: one order brings a second model, and one joint histogram of both models' scores leaves, with this many
            bins per model; 0 for none.
        paired_at: hospitals that are asked for it, the others are too small for it to tell anything; none named means
            all. Only theirs is a share of epsilon.
        matrix: how many hospitals' own models are scored here; 0 for none.
        findings: the task's secondary findings; one histogram of scores of each leaves after the last round.
        structures: the structures that the model outlines; two histograms of each leave, of Dice and of distances.
        edges: where bins lie. ``equal``: equally wide. ``released``: before the first evaluation one look, with
            ``RANGE_NOISE``, counts patients whatever their class in cells that are the same for every study; its
            quantiles are the edges for all hospitals, and each evaluation's are those of the next.
        answers: questions with another answer than yes or no, by name: of each, tables leave after the last round.
    """

    releases: Count
    bins: Annotated[int, Field(ge=2, le=65536)]
    epsilon: Epsilon | None
    subgroups: Annotated[list[Attribute], Field(max_length=20)] = Field(default_factory=list)
    paired: Annotated[int, Field(ge=0, le=64)] = 0
    matrix: Annotated[int, Field(ge=0, le=1000)] = 0
    findings: Annotated[list[Name], Field(max_length=100)] = Field(default_factory=list)
    structures: Annotated[list[Name], Field(max_length=100)] = Field(default_factory=list)
    edges: Edges = "equal"
    paired_at: Annotated[list[Name], Field(max_length=10_000)] = Field(default_factory=list)
    answers: Annotated[dict[Name, AnswerTerms], Field(max_length=101)] = Field(default_factory=dict)

    def histograms(self, last: bool) -> int:
        """How many leave after one evaluation: each includes every patient once."""
        return 1 + (self._at_last() if last else 0)

    def all_histograms(self) -> int:
        """How many leave over the whole study."""
        return self.releases + self._at_last() + (self.paired > 0) + self.matrix

    def histograms_at(self, hospital: str) -> int:
        """How many leave one hospital over the whole study."""
        spared = self.paired > 0 and bool(self.paired_at) and hospital not in self.paired_at
        return self.all_histograms() - spared

    def _at_last(self) -> int:
        tables = sum(answer.histograms for answer in self.answers.values())
        return len(self.subgroups) + len(self.findings) + 2 * len(self.structures) + tables


@dataclass(frozen=True, config=STRICT)
class SecureSumTerms:
    """What hospitals send as parts of a sum that nobody sees by themselves, with noise that all of them share.

    Attributes:
        steps: training is one step a round, each a secure sum of clipped gradients.
        figures: histograms leave as secure sums only: there are figures of all patients and of no single hospital.
        least_hospitals: a sum of fewer is never made.
        colluding: so many hospitals may conspire with the coordinator; the others' noise suffices without theirs.
        spare_steps, spare_evaluations: so many attempts may fail over the study; the noise is planned for them as well.
        peers: fingerprint of each hospital's enrolled key. Nobody else can be part of a sum.
    """

    steps: bool
    figures: bool
    least_hospitals: Annotated[int, Field(ge=2, le=10_000)]
    colluding: Annotated[int, Field(ge=1, le=10_000)]
    spare_steps: Annotated[int, Field(ge=0, le=100_000)]
    spare_evaluations: Annotated[int, Field(ge=0, le=100_000)]
    peers: Annotated[dict[Name, Fingerprint], Field(max_length=10_000)]

    @model_validator(mode="after")
    def _somebody_is_honest(self) -> Self:
        if not (self.steps or self.figures):
            raise ValueError("neither steps nor figures are sums")
        if self.least_hospitals - self.colluding < 2:
            raise ValueError(
                f"of {self.least_hospitals} hospitals with {self.colluding} colluding, at least 2 must be honest: with "
                "one there is no noise to share"
            )
        if len(self.peers) < self.least_hospitals:
            raise ValueError(f"{len(self.peers)} hospitals have a key, at least {self.least_hospitals} must take part")
        if len(set(self.peers.values())) < len(self.peers):
            raise ValueError("two hospitals have one key: each must have its own")
        return self


@dataclass(frozen=True, config=STRICT)
class StudyDocument:
    """One study, complete.

    Attributes:
        name: the study's id, never used twice.
        release: the version of Consilium that it was written for.
        task, task_version: the clinical question and ``Task.example_version``.
        contract: digest of the task's acquisition contract, see ``tasks/contract.py``.
        model: name and options of the network, as ``conf.schema`` has them.
        rounds: the maximal number of rounds.
        asked: in how many of them one hospital trains at most; it plans its noise for this number and refuses more.
        sizes: each hospital's public size, the weight of its updates. Fixed before the study starts: no message can
            claim another.
        asked_by: who asks for the study, by the name in the certificate that its server knows them by; empty in a
            simulation, where nobody is asked.
        secure_sum: what is sent as secure sums; ``None`` for nothing: each hospital adds the whole noise by itself.
        seed: where no privacy is asked for, what the draws of patients and images begin with, so that the study can be
            repeated to the last digit; ``None``, as always with privacy: each hospital draws as nobody can repeat.
    """

    name: Name
    release: Annotated[str, Field(max_length=40)]
    task: Name
    task_version: Count
    contract: HexDigest
    model: Annotated[dict[Annotated[str, Field(max_length=40)], Option], Field(max_length=40)]
    rounds: Count
    asked: Count
    training: TrainingTerms
    privacy: PrivacyTerms
    evaluation: EvaluationTerms
    method: MethodTerms
    wire: WireTerms
    sizes: Annotated[dict[Name, PublicSize], Field(max_length=10_000)]
    asked_by: Name | Literal[""] = ""
    secure_sum: SecureSumTerms | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.asked > self.rounds:
            raise ValueError(f"a hospital cannot train in {self.asked} of {self.rounds} rounds")
        if self.training.learning_rate * self.training.final_rate < LEAST_RATE * (1 - 1e-9):
            raise ValueError(f"learning_rate times final_rate must not fall below {LEAST_RATE:g}")
        if self.training.warm_up and self.training.learning_rate / (self.training.warm_up + 1) < LEAST_RATE:
            raise ValueError(f"learning_rate / (warm_up + 1) must not fall below {LEAST_RATE:g}")
        if self.training.warm_up >= self.rounds:
            raise ValueError(f"warm_up must leave some of the {self.rounds} rounds")
        if self.training.optimizer == "adam" and (self.training.momentum or self.method.control_variates):
            raise ValueError("adam has a momentum of its own, and control variates are made for plain steps")
        if self.method.head_steps and self.method.head_steps >= self.training.steps:
            raise ValueError(f"head_steps must leave some of the {self.training.steps} steps for the rest of the model")
        if self.seed is not None and self.privacy.epsilon is not None:
            raise ValueError("seed: where privacy is asked for, nobody may know who is drawn")
        if wrong := list(self._unfit_for_sums()):
            raise ValueError(f"secure_sum: {'; '.join(wrong)}")
        return self

    def _unfit_for_sums(self) -> Iterator[str]:
        """What a secure sum does not go with."""
        sums = self.secure_sum
        if sums is None:
            return
        if sums.peers.keys() != self.sizes.keys():
            yield "every hospital of the study needs a key and a public size"
        if sums.steps:
            yield from self._unfit_for_shared_steps()
        if sums.figures and self.evaluation.epsilon is None:
            yield "figures without noise have none to share"
        if sums.figures and self.evaluation.edges != "equal":
            yield "a first look at where scores lie has noise of its own, which a sum cannot share"
        if sums.figures and (self.evaluation.paired or self.evaluation.matrix):
            yield "paired and matrix are figures of single hospitals"

    def _unfit_for_shared_steps(self) -> Iterator[str]:
        terms = self.training
        if self.privacy.epsilon is None:
            yield "steps without noise have none to share"
        if terms.steps != 1:
            yield (
                f"{terms.steps} steps a round: all but the first would be taken on a model that has one hospital's "
                "small share of the noise alone; each step must be a sum of its own"
            )
        if terms.momentum or terms.weight_decay or terms.optimizer != "sgd":
            yield "momentum, weight_decay and Adam are the server's, which takes the step"
        if terms.final_noise != 1:
            yield "the noise is shared by all and cannot follow one hospital's turns"
        if self.asked != self.rounds:
            yield "every hospital takes part in every step"
        if self.method != MethodTerms():
            yield "a method that adds to a hospital's own steps has none here"
        if self.wire.up != "float32":
            yield "masked words cannot be rounded to fewer bits"

    def turn(self, round: int, others: int) -> int:
        """Which of its turns (from 1) a round is for a hospital that was asked in this many others. Whatever it has
        missed, the study's last round is its last turn."""
        left = min(self.asked - others, self.rounds - round + 1)
        return self.asked - left + 1

    def noise_ahead(self, turn: int = 1) -> list[tuple[float, int]]:
        """For this turn of a hospital and all later ones: the factor of its noise, and the number of steps."""
        turns = range(turn, self.asked + 1)
        return [(self.training.noise_in(number, self.asked), self.steps_a_round()) for number in turns]

    def steps_a_round(self) -> int:
        """Steps that use patients' data in one round of training; a personal model takes its own."""
        return self.training.steps * (1 if self.method.personal is None else 2)


class BadDocument(ValueError):
    """A text is not a study document; the message lists every problem."""


T = TypeVar("T")
_UNSAID = {"optimizer": "sgd", "clip_always": False, "warm_up": 0, "decay": "geometric"}
"""How a hospital trains where the document does not say otherwise."""
_ADAPTER: TypeAdapter[StudyDocument] = TypeAdapter(StudyDocument)


@cache
def release() -> str:
    """The installed version of Consilium."""
    return version("consilium-fl")


def canonical(document: StudyDocument) -> str:
    """The document as JSON with sorted keys and no spaces: equal documents, equal text. One that nobody asks for has
    no ``asked_by``, and one without secure sums no ``secure_sum``, as they had none before there were any; likewise for
    seeds, plain steps whose rate falls geometrically, bins of equal width, comparisons everywhere, answers that are all
    yes or no, classes of equal weight and no pull towards a mean."""
    values = _ADAPTER.dump_python(document)
    for name in ("asked_by", "secure_sum"):
        if not values[name]:
            del values[name]
    if values["seed"] is None:
        del values["seed"]
    if values["method"]["towards_mean"] is None:
        del values["method"]["towards_mean"]
    if values["evaluation"]["edges"] == "equal":
        del values["evaluation"]["edges"]
    for name in ("paired_at", "answers"):
        if not values["evaluation"][name]:
            del values["evaluation"][name]
    if not values["training"]["class_weights"]:
        del values["training"]["class_weights"]
    for name, unsaid in _UNSAID.items():
        if values["training"][name] == unsaid:
            del values["training"][name]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(document: StudyDocument) -> str:
    """SHA-256 of the canonical text, as hexadecimal digits: what is approved."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def read(text: str) -> StudyDocument:
    """The document in a JSON text, however it is spaced.

    Raises:
        BadDocument: listing every field that is missing, unknown or out of range.
    """
    return validated(_ADAPTER, text, "study")


def validated(adapter: TypeAdapter[T], text: str, kind: str) -> T:
    """The document of a kind in a JSON text.

    Raises:
        BadDocument: listing every field that is missing, unknown or out of range.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise BadDocument(received.faults_of(error, f"a {kind} document")) from None
