"""The messages between server and hospital: eight typed messages and a refusal.

This is the only file that knows the names of records and keys. A message is scalars plus arrays. The scalars are sent
as one JSON text inside a ``ConfigRecord`` (Flower's records hold no nested values), the arrays as an ``ArrayRecord``,
or, where they are small, as safetensors beside the scalars.
Everything that arrives is checked field by field before it is used: unknown fields, wrong types, values out of
range and other protocol versions are refused, all problems in one message.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from tasks.protocol.study import STRICT, Count, HexDigest, Name, StudyDocument
from tasks.protocol.subgroups import LEVELS
from tasks.protocol.sum_key import SumKey
from tasks.protocol.survey import SurveyDocument

VERSION = 6
_SMALL = 2**16
"""Up to so many bytes of arrays travel beside the scalars. Flower makes two objects of every array, and each object is
a request of its own to the SuperLink, there and back: signed, looked up and stored. A linear model is three objects so,
not eight."""
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_HASH = re.compile(r"[0-9a-f]{64}")
_PACKED_HEAD = "consilium"
_LISTED = 10
"""How many problems a refusal lists: a message must not decide how much is written to a log."""

Arrays = dict[str, NDArray[Any]]

CONTROL = "control-variate."
"""Prefix of SCAFFOLD's c in an order; no parameter's name starts like this, since Python names have no '-'."""
OTHER = "other-model."
"""Prefix of a second model's tensors in an order to compare."""
FINDING, DICE, DISTANCE = "finding-", "dice-", "hd95-"
"""Prefixes of histograms of a secondary finding, and of a structure's outlines."""
TOLD, REST = "told-", "rest-"
"""Prefixes of tables of a question with another answer than yes or no, by the question's name: what readers say and
what is told, see ``tasks/metrics/classes.py``, ``grades.py`` and ``measures.py``; each class against all others."""
RANGE, RANGE_CELLS = "range", 32
"""Name and cells of the histogram of a first look."""
EDGES = "score-edges"
"""Name of the bins' edges in an order to compare: float64 of shape (2, bins - 1), the order's own model first."""


class ErrorCode(StrEnum):
    """Why a hospital refused; only the code leaves, the details stay in its log."""

    BAD_ORDER = "BAD_ORDER"
    OTHER_RELEASE = "OTHER_RELEASE"
    NOT_PERMITTED = "NOT_PERMITTED"
    NOT_APPROVED = "NOT_APPROVED"
    STOPPED = "STOPPED"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    LEDGER_BROKEN = "LEDGER_BROKEN"
    LEDGER_BEHIND = "LEDGER_BEHIND"
    NO_COHORT = "NO_COHORT"
    MODEL_REFUSED = "MODEL_REFUSED"
    UPDATE_NOT_FINITE = "UPDATE_NOT_FINITE"
    NOT_HELD = "NOT_HELD"
    PEERS_REFUSED = "PEERS_REFUSED"
    TAG_USED = "TAG_USED"
    SITE_MISCONFIGURED = "SITE_MISCONFIGURED"
    INTERNAL = "INTERNAL"


class WireError(ValueError):
    """A message does not follow the protocol."""


@dataclass(frozen=True, config=STRICT)
class ModelChange:
    """The order's arrays are not the model but its change, in the study's encoding ``wire.down``.

    Attributes:
        base: digest of the model that the hospital holds.
        result: digest of the resulting model; if it equals ``base``, there are no arrays.
    """

    base: HexDigest
    result: HexDigest


@dataclass(frozen=True, config=STRICT)
class SumAttempt:
    """One attempt at a secure sum.

    Attributes:
        number: from 1 in each round; a pad serves for one attempt.
        roster: the sum keys of those whose parts are added, in order of their names. All must be shown the same.
    """

    number: Count
    roster: Annotated[list[SumKey], Field(min_length=2, max_length=10_000)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        names = [each.hospital for each in self.roster]
        if names != sorted(set(names)):
            raise ValueError("the roster names each hospital once, in the order of the alphabet")
        if len({each.key for each in self.roster}) < len(names):
            raise ValueError("two hospitals of the roster have one sum key")
        return self


@dataclass(frozen=True, config=STRICT)
class KeyOrder:
    """Tell your sum key for this study."""

    study: StudyDocument
    round: Annotated[int, Field(ge=0)]
    arrays: Annotated[Arrays, Field(repr=False, max_length=0)] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class KeyReport:
    """A hospital's sum key."""

    study: Name
    round: Annotated[int, Field(ge=0)]
    key: SumKey
    ledger_head: HexDigest
    arrays: Annotated[Arrays, Field(repr=False, max_length=0)] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class TrainOrder:
    """Train the given model on your training patients and report the change."""

    study: StudyDocument
    round: Count
    arrays: Annotated[Arrays, Field(repr=False)] = Field(default_factory=dict)
    """The model's tensors that are sent, float32, by parameter name; ``control-variate.*`` are SCAFFOLD's c."""
    change: ModelChange | None = None
    """``None``: the arrays are the whole model."""
    ledger_head: HexDigest | None = None
    """The last hash of the hospital's ledger that the server saw: it tells the hospital if an old copy was restored.
    Not part of the request, so of neither the digest nor the JSON text."""
    attempt: SumAttempt | None = None
    """Where the study's steps are secure sums: report masked words of one step."""

    @model_validator(mode="after")
    def _agreed(self) -> Self:
        """Small noise leaves in sums or not at all."""
        _refuse_other_kind(self.study.secure_sum is not None and self.study.secure_sum.steps, self.attempt)
        return self


@dataclass(frozen=True, config=STRICT)
class TrainReport:
    """How the model changed."""

    study: Name
    round: Count
    epsilon: Annotated[float, Field(ge=0)] | None
    """Spent on this study's training so far, at ``delta``; ``None`` if no privacy was requested and none given."""
    delta: float
    noise_multiplier: Annotated[float, Field(ge=0)]
    """Standard deviation of each step's noise in units of the study's ``clip_norm``; 0 without privacy."""
    ledger_head: HexDigest
    """Hash of the last row of the hospital's ledger: opaque to others; the same hospital can find it among its rows."""
    arrays: Annotated[Arrays, Field(repr=False)] = Field(default_factory=dict)
    """New minus old value of each tensor that is sent, in the study's encoding ``wire.up``; of a secure sum ``words``
    alone, see ``tasks/protocol/secure_sum.py``."""
    epsilon_alone: Annotated[float, Field(ge=0)] | None = None
    """Of a secure sum: what ``epsilon`` would be if all other hospitals conspired with the coordinator. Then
    ``noise_multiplier`` is that of the sum."""


Asks = Literal["scores", "range", "paired", "matrix"]


@dataclass(frozen=True, config=STRICT)
class EvaluateOrder:
    """Score your validation patients with the given model and report the histogram of the scores.

    Attributes:
        asks: ``scores``: of the study's own model. ``range``: where its scores lie, for the edges of later bins.
            ``paired``: of that and another one (``other-model.*``), one joint histogram in the bins of ``score-edges``.
            ``matrix``: of another model alone, which is whole.
    """

    study: StudyDocument
    round: Annotated[int, Field(ge=0)]
    arrays: Annotated[Arrays, Field(repr=False)] = Field(default_factory=dict)
    change: ModelChange | None = None
    asks: Asks = "scores"
    edges: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(max_length=65535)] | None = None
    """Between the bins of scores, where the study's terms have them released; ``None``: equally wide bins."""
    ledger_head: HexDigest | None = None
    """As in ``TrainOrder``."""
    attempt: SumAttempt | None = None
    """As in ``TrainOrder``, where the study's figures are secure sums."""

    @model_validator(mode="after")
    def _agreed(self) -> Self:
        """Only what the study document states may be asked, and only after the last round."""
        _refuse_other_kind(self.study.secure_sum is not None and self.study.secure_sum.figures, self.attempt)
        self._require_edges()
        if self.asks in ("scores", "range"):
            return self
        if not getattr(self.study.evaluation, self.asks):
            raise ValueError(f"asks for {self.asks!r}, which the study document does not contain")
        if self.round != self.study.rounds or self.change is not None:
            raise ValueError(f"asks for {self.asks!r}: allowed after the last round only, and with the whole model")
        return self

    def _require_edges(self) -> None:
        terms = self.study.evaluation
        if self.asks == "range" and terms.edges != "released":
            raise ValueError("asks for 'range', which the study document does not contain")
        due = terms.edges == "released" and self.asks in ("scores", "matrix")
        if due != (self.edges is not None):
            raise ValueError(f"edges: the study's terms ask for {'edges' if due else 'no edges'} here")
        if self.edges is not None and (len(self.edges) != terms.bins - 1 or sorted(self.edges) != self.edges):
            raise ValueError(f"edges: must be {terms.bins - 1} numbers that do not decrease")


@dataclass(frozen=True, config=STRICT)
class EvaluateReport:
    """Histogram of patient scores for each class."""

    study: Name
    round: Annotated[int, Field(ge=0)]
    epsilon: Annotated[float, Field(ge=0)] | None
    delta: float
    noise: Annotated[float, Field(ge=0)]
    """Standard deviation of the noise on every number of the arrays; 0 without privacy. Intervals need it."""
    ledger_head: HexDigest
    """As in ``TrainReport``."""
    arrays: Annotated[Arrays, Field(repr=False)] = Field(default_factory=dict)
    """``histogram``: float64 of shape (2, bins), counts of negative and positive patients by score in [0, 1]. After the
    last round also: for each of the study's subgroups one of shape (levels, 2, bins) under the attribute's name; for
    each secondary finding ``finding-NAME`` (2, bins); for each structure ``dice-NAME`` (2, bins) and ``hd95-NAME``
    (bins,), see ``tasks/metrics/outlining.py``; for each question with another answer than yes or no ``told-NAME`` and,
    of classes, ``rest-NAME`` (classes, 2, bins).
    Of a first look ``range`` alone, of shape (RANGE_CELLS,): patients by score.
    Where two models are compared, ``paired`` alone, of shape (2, bins, bins): class, bin of the order's model, bin of
    the other one. Of a secure sum ``words`` alone: all of these in order of their names."""
    epsilon_alone: Annotated[float, Field(ge=0)] | None = None
    """As in ``TrainReport``; ``noise`` is that of the sum."""


def _refuse_other_kind(is_sum: bool, attempt: SumAttempt | None) -> None:
    if is_sum != (attempt is not None):
        raise ValueError(f"attempt: the study's terms ask for {'a secure sum' if is_sum else 'no secure sum'} here")


@dataclass(frozen=True, config=STRICT)
class SurveyOrder:
    """Count your patients for a survey."""

    study: SurveyDocument
    round: Annotated[int, Field(ge=0, le=0)] = 0
    arrays: Annotated[Arrays, Field(repr=False, max_length=0)] = Field(default_factory=dict)
    ledger_head: HexDigest | None = None
    """As in ``TrainOrder``."""


@dataclass(frozen=True, config=STRICT)
class SurveyReport:
    """Tables of a survey, float64, with noise on every cell: names and shapes are ``SurveyDocument.shapes``."""

    study: Name
    round: Annotated[int, Field(ge=0, le=0)]
    epsilon: Annotated[float, Field(ge=0)] | None
    """Of a patient, in all tables together."""
    delta: float
    noise: Annotated[float, Field(ge=0)]
    """Standard deviation of the noise on every number of the tables."""
    ledger_head: HexDigest
    """As in ``TrainReport``."""
    arrays: Annotated[Arrays, Field(repr=False)] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Refusal:
    """The hospital refused the order."""

    study: Annotated[str, Field(max_length=120)]
    round: Annotated[int, Field(ge=0)]
    code: ErrorCode
    arrays: Annotated[Arrays, Field(repr=False, max_length=0)] = Field(default_factory=dict)


Message = (
    KeyOrder
    | KeyReport
    | TrainOrder
    | TrainReport
    | EvaluateOrder
    | EvaluateReport
    | SurveyOrder
    | SurveyReport
    | Refusal
)
Order = TypeVar("Order", TrainOrder, EvaluateOrder)
M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=Message)
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}
_ADDRESSED = ("TrainOrder", "EvaluateOrder", "SurveyOrder")
"""Kinds of orders that concern patients: each hospital's has the last ledger hash seen of it."""
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}
_NOT_SCALARS = {name: {"arrays", "ledger_head"} if name in _ADDRESSED else {"arrays"} for name in _KINDS}


def due(order: EvaluateOrder) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the float64 arrays in the report on an order; they follow from the order alone."""
    terms = order.study.evaluation
    if order.asks == "paired":
        return {"paired": (2, terms.paired, terms.paired)}
    if order.asks == "range":
        return {RANGE: (RANGE_CELLS,)}
    return due_scores(order.study, order.round) if order.asks == "scores" else {"histogram": (2, terms.bins)}


def due_scores(study: StudyDocument, round: int) -> dict[str, tuple[int, ...]]:
    """The same for a round's scores of the study's own model."""
    terms = study.evaluation
    shapes: dict[str, tuple[int, ...]] = {"histogram": (2, terms.bins)}
    if round == study.rounds:
        shapes |= {attribute: (len(LEVELS[attribute]), 2, terms.bins) for attribute in terms.subgroups}
        shapes |= {FINDING + finding: (2, terms.bins) for finding in terms.findings}
        shapes |= {DICE + structure: (2, terms.bins) for structure in terms.structures}
        shapes |= {DISTANCE + structure: (terms.bins,) for structure in terms.structures}
        for question, answer in terms.answers.items():
            shapes[TOLD + question] = (answer.cells[0], answer.cells[1])
            if answer.kind == "classes":
                shapes[REST + question] = (answer.cells[0], 2, terms.bins)
    return shapes


def encode(message: Message) -> RecordDict:
    """The message as Flower sends it. Equal messages give equal bytes, whatever the order of their arrays.

    >>> report = TrainReport(
    ...     "demo-1", 1, epsilon=0.8, delta=1e-4, noise_multiplier=1.2, ledger_head="0" * 64,
    ...     arrays={"weight": np.ones(2, np.float32)},
    ... )
    >>> decode(encode(report), TrainReport, Refusal).arrays["weight"]
    array([1., 1.], dtype=float32)
    >>> decode(encode(Refusal("demo-1", 1, ErrorCode.STOPPED)), TrainReport, Refusal).code
    <ErrorCode.STOPPED: 'STOPPED'>
    >>> decode(encode(report), EvaluateReport)
    Traceback (most recent call last):
    tasks.protocol.wire.WireError: a message of kind 'TrainReport' where EvaluateReport is due
    """
    head = ConfigRecord({"version": VERSION, "kind": type(message).__name__, "json": _scalars(message)})
    arrays = {name: np.asarray(message.arrays[name], order="C") for name in sorted(message.arrays)}
    records = RecordDict({"head": head})
    if sum(array.nbytes for array in arrays.values()) <= _SMALL:
        head["arrays"] = save_tensors(arrays)
    else:
        records["arrays"] = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    if isinstance(message, TrainOrder | EvaluateOrder | SurveyOrder):
        return addressed(records, message.ledger_head)
    return records


def addressed(records: RecordDict, ledger_head: str | None) -> RecordDict:
    """An encoded order for one hospital: with the last ledger hash seen of it. The arrays are shared."""
    head = ConfigRecord({**records.config_records["head"], "ledger_head": ledger_head or ""})
    return RecordDict({**records, "head": head})


def decode(records: RecordDict, kind: type[M], *or_kinds: type[N]) -> M | N:
    """The message, of one of the expected kinds.

    Raises:
        WireError: the records have another form, version or kind, or a field is wrong.
    """
    try:
        head = records.config_records["head"]
        version, name, text = head["version"], head["kind"], head["json"]
        ledger_head = head.get("ledger_head", "")
        arrays = _arrays(records)
    except Exception as error:  # Flower raises all kinds of errors for malformed records
        raise WireError(f"not a Consilium message ({type(error).__name__})") from error
    message: M | N = _checked(version, name, text, arrays, (kind, *or_kinds))
    if isinstance(message, TrainOrder | EvaluateOrder | SurveyOrder) and ledger_head != "":
        if not isinstance(ledger_head, str) or not _HASH.fullmatch(ledger_head):
            raise WireError(f"{_short(name)}: ledger_head is {_short(ledger_head)}, which is not a hash")
        return replace(message, ledger_head=ledger_head)
    return message


def _arrays(records: RecordDict) -> Arrays:
    """The arrays of a message, whichever way they came. An error of some kind if they came in no way, or in both."""
    head = records.config_records["head"]
    if "arrays" not in head:
        return {str(name): array.numpy() for name, array in records.array_records["arrays"].items()}
    if "arrays" in records or not isinstance(packed := head["arrays"], bytes):
        raise ValueError("arrays twice, or not as bytes")
    return {name: array.copy() for name, array in load_tensors(packed).items()}  # of one's own: they may be written to


def size(records: RecordDict) -> int:
    """Bytes of a message's payload: the serialised arrays and the head. Flower adds a little overhead."""
    arrays = sum(len(array.data) for record in records.array_records.values() for array in record.values())
    values = [value for record in records.config_records.values() for value in record.values()]
    return arrays + sum(len(value if isinstance(value, bytes) else str(value)) for value in values)


def give_up(records: RecordDict) -> None:
    """Let go of the arrays of a message that has been sent or read. Flower's messages refer to themselves, so that
    their memory would come back only when Python looks for such circles."""
    for record in records.array_records.values():
        record.clear()


def pack(message: Message) -> bytes:
    """The message as bytes for a file: safetensors, with scalars in its metadata. Equal messages give equal bytes."""
    # One entry: safetensors writes several in an order that changes from call to call.
    head = json.dumps([VERSION, type(message).__name__, _scalars(message)])
    arrays = {name: np.asarray(value, order="C") for name, value in message.arrays.items()}
    return save_tensors(arrays, metadata={_PACKED_HEAD: head})


def unpack(content: bytes, kind: type[M], *or_kinds: type[N]) -> M | N:
    """The inverse of ``pack``.

    Raises:
        WireError: as ``decode``.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        arrays = load_tensors(content)
        version, name, text = json.loads(metadata[_PACKED_HEAD])
    except Exception as error:
        raise WireError(f"not a packed Consilium message ({type(error).__name__})") from error
    message: M | N = _checked(version, name, text, arrays, (kind, *or_kinds))
    return message


def digest(message: Message) -> str:
    """SHA-256 of everything in the message, as hexadecimal digits."""
    sha = hashlib.sha256(f"{VERSION} {type(message).__name__} {_scalars(message)}".encode())
    sha.update(digest_of_arrays(message.arrays).encode())
    return sha.hexdigest()


def digest_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names, dtypes, shapes and values, in order of the names."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        value = np.asarray(arrays[name], order="C")
        sha.update(f"{name} {value.dtype.str} {value.shape};".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()


def _scalars(message: Message) -> str:
    kind = type(message)
    values = _ADAPTERS[kind.__name__].dump_python(message, mode="python", exclude=_NOT_SCALARS[kind.__name__])
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checked(version: object, kind: object, text: object, arrays: Arrays, expected: tuple[type[Any], ...]) -> Any:
    names = [e.__name__ for e in expected]
    if version != VERSION:
        raise WireError(
            f"protocol version {_short(version)}, this side uses {VERSION}: install one release on both sides"
        )
    if kind not in names:
        raise WireError(f"a message of kind {_short(kind)} where {' or '.join(names)} is due")
    _check_arrays(str(kind), arrays)
    try:
        return replace(_read(str(kind), str(text)), arrays=arrays)
    except ValidationError as error:
        problems = [f"{_short('.'.join(map(str, e['loc'])))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise WireError(f"{kind}: {_listed(problems)}") from None


@lru_cache(maxsize=16)
def _read(kind: str, text: str) -> Any:
    """The message without arrays. Cached, because all hospitals of one process are sent the same text."""
    scalars = _ADAPTERS[kind].validate_json(text)
    if scalars.arrays or (kind in _ADDRESSED and scalars.ledger_head is not None):
        raise WireError(f"{kind}: the head must hold no arrays, and no ledger hash in its text")
    return scalars


def _check_arrays(kind: str, arrays: Arrays) -> None:
    """Refuse names that a torch module cannot have, and anything but numbers in this machine's own format."""
    wrong = [f"{_short(name)} is not a tensor name" for name in arrays if not _ARRAY_NAME.fullmatch(name)]
    # NumPy reads bytes that start like a zip archive as an archive and not as an array.
    wrong += [f"{_short(name)} is not an array" for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    wrong += [
        f"{_short(name)} has dtype {_short(value.dtype.str)}"
        for name, value in arrays.items()
        if isinstance(value, np.ndarray)
        and (value.dtype.kind not in "fiub" or value.dtype.itemsize > 8 or not value.dtype.isnative)
    ]
    if wrong:
        raise WireError(f"{kind}: {_listed(wrong)}")


def _listed(problems: list[str]) -> str:
    more = len(problems) - _LISTED
    return "; ".join(problems[:_LISTED]) + (f"; and {more} more" if more > 0 else "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
