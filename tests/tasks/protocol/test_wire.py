"""What crosses the wire arrives as it was sent, and nothing else arrives at all."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from server.runtime.flower_private import claim_identity, deflate, inflate
from tasks.protocol import wire
from tasks.protocol.study import (
    AnswerTerms,
    EvaluationTerms,
    MethodTerms,
    PrivacyTerms,
    SecureSumTerms,
    StudyDocument,
    TrainingTerms,
    WireTerms,
)
from tasks.protocol.sum_key import SumKey
from tasks.protocol.wire import (
    ErrorCode,
    EvaluateOrder,
    EvaluateReport,
    Message,
    ModelChange,
    Refusal,
    SumAttempt,
    TrainOrder,
    TrainReport,
    WireError,
)
from tests.spread import spread

KINDS: list[type[Any]] = [TrainOrder, TrainReport, EvaluateOrder, EvaluateReport, Refusal]
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
positive = st.floats(min_value=1e-6, max_value=1e6)
epsilons = st.floats(min_value=1e-9, max_value=1000)
fraction = st.floats(min_value=1e-6, max_value=1, exclude_max=True)
counts = st.integers(1, 100_000)
sizes = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,9}", fullmatch=True), st.integers(1, 10**7), max_size=3
)
dtypes = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_])
values = dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
arrays = st.dictionaries(names, values, max_size=3)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
changes = st.none() | st.builds(ModelChange, digests, digests)
forms = st.sampled_from(["float32", "float16", "int8"])
methods = st.one_of(
    st.builds(MethodTerms, proximal=positive),
    st.builds(MethodTerms, control_variates=st.booleans()),
    st.builds(MethodTerms, stays=st.sampled_from(["nothing", "normalisation", "head"])),
    st.builds(MethodTerms, personal=st.none() | positive),
    st.builds(MethodTerms, towards_mean=st.none() | positive),
)
documents = st.builds(
    StudyDocument,
    name=names,
    release=names,
    task=names,
    task_version=counts,
    contract=digests,
    model=st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers(0, 99) | st.booleans(), max_size=4),
    rounds=st.integers(5, 99),
    asked=st.integers(1, 5),
    training=st.builds(
        TrainingTerms,
        counts,
        positive,
        fraction,
        st.just(0.0) | fraction,
        fraction | st.just(1.0),
        st.integers(1, 1000),
    ),
    privacy=st.builds(PrivacyTerms, st.none() | epsilons, fraction, positive),
    evaluation=st.builds(
        EvaluationTerms,
        counts,
        st.integers(2, 65536),
        st.none() | epsilons,
        st.just([]),
        st.integers(1, 64),
        st.integers(1, 9),
    ),
    method=methods,
    wire=st.builds(WireTerms, forms, forms),
    sizes=sizes,
)
messages = st.one_of(
    st.builds(TrainOrder, documents, counts, arrays, changes, st.none() | digests),
    st.builds(EvaluateOrder, documents, st.just(0) | counts, arrays, changes, ledger_head=st.none() | digests),
    st.builds(
        lambda document, arrays, asks: EvaluateOrder(document, document.rounds, arrays, asks=asks),
        documents,
        arrays,
        st.sampled_from(["paired", "matrix"]),
    ),
    st.builds(TrainReport, names, counts, st.none() | positive, fraction, st.just(0.0) | positive, digests, arrays),
    st.builds(EvaluateReport, names, counts, st.none() | positive, fraction, positive, digests, arrays),
    st.builds(Refusal, st.text(max_size=120), st.just(0) | counts, st.sampled_from(ErrorCode)),
)


def assert_same(one: Message, other: Message) -> None:
    assert replace(one, arrays={}) == replace(other, arrays={})
    assert type(one) is type(other)
    assert one.arrays.keys() == other.arrays.keys()
    for name, value in one.arrays.items():
        assert (value.dtype, value.shape) == (other.arrays[name].dtype, other.arrays[name].shape)
        assert value.tobytes() == other.arrays[name].tobytes()  # NaN and -0.0 included


@quick
@given(messages)
def test_a_message_survives_flowers_own_codec(message: Message) -> None:
    claim_identity()
    sent = FlowerMessage(wire.encode(message), dst_node_id=7, message_type="train")
    assert_same(message, wire.decode(inflate(deflate(sent)).content, *KINDS))


@quick
@given(messages)
def test_a_message_survives_a_file(message: Message) -> None:
    packed = wire.pack(message)
    unbooked = replace(message, ledger_head=None) if isinstance(message, TrainOrder | EvaluateOrder) else message
    assert_same(
        unbooked, wire.unpack(packed, *KINDS)
    )  # what a hospital is told of its books is no part of what is asked
    assert all(wire.pack(message) == packed for _ in range(5))
    assert wire.digest(wire.unpack(packed, *KINDS)) == wire.digest(message)


def test_equal_messages_are_equal_bytes_in_whatever_order_their_arrays_are(document: StudyDocument) -> None:
    arrays = {name: np.full(3, number, np.float32) for number, name in enumerate("abcdef")}
    one, other = (TrainOrder(document, 1, order) for order in (arrays, dict(reversed(arrays.items()))))
    assert wire.encode(one).object_id == wire.encode(other).object_id
    assert wire.pack(one) == wire.pack(other)


def test_what_is_no_array_in_memory_order_arrives_as_it_looks(document: StudyDocument) -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3).T
    order = TrainOrder(document, 1, {"w": value})
    for received in (wire.decode(wire.encode(order), TrainOrder), wire.unpack(wire.pack(order), TrainOrder)):
        np.testing.assert_array_equal(received.arrays["w"], value)


def test_size_counts_the_arrays_and_the_head(document: StudyDocument) -> None:
    def size(values: int) -> int:
        return wire.size(wire.encode(TrainOrder(document, 1, {"w": np.zeros(values, np.float32)})))

    assert size(1000) - size(100) == pytest.approx(3600, abs=8), "a head says how long they are"
    assert size(101_000) - size(100_000) == 4000
    assert size(100) > 400 + len(wire._scalars(TrainOrder(document, 1)))


@pytest.mark.parametrize("values", [0, 1, 100, wire._SMALL // 4, wire._SMALL // 4 + 1])
def test_small_arrays_travel_in_few_objects_and_large_ones_as_arrays(document: StudyDocument, values: int) -> None:
    """Three objects: the message, its records, its head; they are requests to a SuperLink there and back."""
    order = TrainOrder(document, 1, {"w": np.arange(values, dtype=np.float32), "b": np.zeros((), np.float32)})
    small = values < wire._SMALL // 4
    records = wire.encode(order)
    assert ("arrays" in records) is not small
    assert len(deflate(FlowerMessage(records, 1, "train"))[1]) == (3 if small else 8)
    for form in (records, spread(records)):
        received = wire.decode(form, TrainOrder)
        assert wire.digest(received) == wire.digest(order)
        received.arrays["w"][...] = 1.0  # it is the receiver's own


@pytest.mark.parametrize("arrays", [b"", b"x" * 9, "text", 1, [b"x"], b"\xff" * 8 + b"{}"])
def test_packed_arrays_of_another_form_are_refused(document: StudyDocument, arrays: Any) -> None:
    records = wire.encode(TrainOrder(document, 1, {"w": np.zeros(3, np.float32)}))
    records["head"]["arrays"] = arrays
    with pytest.raises(WireError, match="not a Consilium message"):
        wire.decode(records, TrainOrder)


def test_arrays_that_come_twice_are_refused(document: StudyDocument) -> None:
    records = wire.encode(TrainOrder(document, 1, {"w": np.zeros(3, np.float32)}))
    records["arrays"] = spread(records)["arrays"]
    with pytest.raises(WireError, match="not a Consilium message"):
        wire.decode(records, TrainOrder)


# --- the digest -------------------------------------------------------------------------------------------------------


def test_a_digest_is_the_same_in_another_process(document: StudyDocument) -> None:
    order = TrainOrder(document, 1, {"b": np.ones(2, np.float32), "a": np.zeros((1, 2), np.float32)})
    read = "wire.unpack(sys.stdin.buffer.read(), wire.TrainOrder)"
    program = f"import sys; from tasks.protocol import wire; print(wire.digest({read}))"
    ended = subprocess.run([sys.executable, "-c", program], input=wire.pack(order), capture_output=True, check=True)
    assert ended.stdout.decode().strip() == wire.digest(order)


def test_a_digest_does_not_depend_on_the_order_of_arrays(document: StudyDocument) -> None:
    one = {"a": np.zeros(2, np.float32), "b": np.ones(3, np.float32)}
    other = dict(reversed(one.items()))
    assert wire.digest(TrainOrder(document, 1, one)) == wire.digest(TrainOrder(document, 1, other))


def _others(document: StudyDocument) -> dict[str, StudyDocument]:
    """The document changed in each single field, nested ones too."""
    changed: dict[str, Any] = {
        "name": "demo-2",
        "release": "0.0.0",
        "task": "pneumonia_xray",
        "task_version": 2,
        "contract": "0" * 64,
        "model": {**document.model, "J": 3},
        "rounds": 3,
        "asked": 1,
    }
    found = {key: replace(document, **{key: value}) for key, value in changed.items()}
    for part in ("training", "privacy", "evaluation"):
        terms = getattr(document, part)
        for field in fields(terms):
            value = getattr(terms, field.name)
            if field.name == "class_weights":
                other: Any = [0.5]
            elif field.name == "answers":
                other = {"question": AnswerTerms("grade", [3, 3])}
            elif isinstance(value, list):
                other = [*value, "sex"]
            elif isinstance(value, bool):
                other = not value
            elif field.name in (words := {"edges": "released", "optimizer": "adam", "decay": "cosine"}):
                other = words[field.name]
            else:
                other = value + 1 if isinstance(value, int) else value / 2 + 0.01
            if field.name == "final_rate":
                other = 0.5
            found[f"{part}.{field.name}"] = replace(document, **{part: replace(terms, **{field.name: other})})
    ways = {"proximal": 0.1, "control_variates": True, "stays": "head", "personal": 0.1, "towards_mean": 0.1}
    for name, value in ways.items():
        found[f"method.{name}"] = replace(document, method=MethodTerms(**{name: value}))  # type: ignore[arg-type]
    found["method.head_steps"] = replace(document, method=MethodTerms(stays="head", head_steps=1))
    return found | {
        "wire.up": replace(document, wire=WireTerms(up="int8")),
        "wire.down": replace(document, wire=WireTerms(down="int8")),
        "sizes": replace(document, sizes={"ash": 90}),
        "asked_by": replace(document, asked_by="rosalind"),
        "seed": _seeded(document, 1),
        "another seed": _seeded(document, 2),
        "another size": replace(document, sizes={"ash": 91}),
        "secure_sum": _with_sums(document, 1),
        "more colluding": _with_sums(document, 2),
    }


def _seeded(document: StudyDocument, seed: int) -> StudyDocument:
    return replace(document, seed=seed, privacy=replace(document.privacy, epsilon=None))


PEERS = {name: " ".join([name * 4] * 8) for name in "abcd"}


def _with_sums(document: StudyDocument, colluding: int) -> StudyDocument:
    """Of figures, so that all that is said of training stays as it is."""
    sums = SecureSumTerms(False, True, 4, colluding, 0, 1, PEERS)
    evaluation = replace(document.evaluation, paired=0, matrix=0)
    return replace(document, evaluation=evaluation, sizes=dict.fromkeys(PEERS, 9), secure_sum=sums)


def _attempt(number: int, keys: str = "AABB") -> SumAttempt:
    pairs = zip("ab", keys[::2], strict=True)
    return SumAttempt(number, [SumKey(name, key * 4, "AA==", "AA==", "AA==", "AA==") for name, key in pairs])


def test_attempt_and_roster_change_the_digest_of_an_order(document: StudyDocument) -> None:
    summed = _with_sums(document, 1)
    orders = [EvaluateOrder(summed, 1, attempt=attempt) for attempt in (_attempt(1), _attempt(2), _attempt(1, "CCDD"))]
    assert len({wire.digest(order) for order in orders}) == 3
    for order in orders:
        assert wire.decode(wire.encode(order), EvaluateOrder) == order


@pytest.mark.parametrize(
    "roster", [[], ["a"], ["b", "a"], ["a", "a"]], ids=["nobody", "one", "in another order", "one twice"]
)
def test_a_roster_names_two_or_more_once_and_in_order(roster: list[str]) -> None:
    with pytest.raises(ValidationError, match=r"roster|at least 2"):
        SumAttempt(1, [SumKey(name, "AAA" + name, "AA==", "AA==", "AA==", "AA==") for name in roster])


def test_two_hospitals_with_one_key_are_no_roster() -> None:
    with pytest.raises(ValidationError, match="one sum key"):
        SumAttempt(1, [SumKey(name, "AAAA", "AA==", "AA==", "AA==", "AA==") for name in "ab"])


def test_an_order_has_an_attempt_where_the_study_has_sums_and_nowhere_else(document: StudyDocument) -> None:
    with pytest.raises(ValidationError, match="no secure sum"):
        TrainOrder(document, 1, attempt=_attempt(1))
    with pytest.raises(ValidationError, match="no secure sum"):
        EvaluateOrder(document, 1, attempt=_attempt(1))
    with pytest.raises(ValidationError, match="a secure sum"):
        EvaluateOrder(_with_sums(document, 1), 1)


def test_every_field_of_an_order_changes_its_digest(document: StudyDocument) -> None:
    weights = {"w": np.zeros(3, np.float32)}
    orders: dict[str, TrainOrder | EvaluateOrder] = {
        "as it is": TrainOrder(document, 1, weights),
        "to evaluate": EvaluateOrder(document, 1, weights),
        "another round": TrainOrder(document, 2, weights),
        "another value": TrainOrder(document, 1, {"w": np.array([0, 0, 1e-30], np.float32)}),
        "another sign of zero": TrainOrder(document, 1, {"w": np.array([0, 0, -0.0], np.float32)}),
        "another name": TrainOrder(document, 1, {"v": np.zeros(3, np.float32)}),
        "another dtype": TrainOrder(document, 1, {"w": np.zeros(3, np.int32)}),
        "another shape": TrainOrder(document, 1, {"w": np.zeros((3, 1), np.float32)}),
        "no weights": TrainOrder(document, 1),
        "a change": TrainOrder(document, 1, weights, ModelChange("0" * 64, "1" * 64)),
    }
    crossed = replace(document, evaluation=replace(document.evaluation, paired=4, matrix=2))
    orders |= {
        f"{asks} of two models": EvaluateOrder(crossed, 2, weights, asks=asks)
        for asks in ("scores", "paired", "matrix")
    }
    orders |= {name: TrainOrder(other, 1, weights) for name, other in _others(document).items()}
    told = {f.name for f in fields(StudyDocument)} - {"training", "privacy", "evaluation", "method", "wire"}
    assert told <= orders.keys()
    assert len({wire.digest(order) for order in orders.values()}) == len(orders)


def test_what_a_hospital_is_told_of_its_books_is_no_part_of_what_is_asked(document: StudyDocument) -> None:
    """An order that was answered is the same order whatever the server has seen since."""
    order = TrainOrder(document, 1, {"w": np.zeros(wire._SMALL, np.float32)})
    sent = wire.encode(order)
    told = [wire.addressed(sent, head) for head in ("a" * 64, "b" * 64, None)]
    received = [wire.decode(each, TrainOrder) for each in told]
    assert [one.ledger_head for one in received] == ["a" * 64, "b" * 64, None]
    assert {wire.digest(one) for one in received} == {wire.digest(order)}
    assert all(each["arrays"] is sent["arrays"] for each in told), "the model is shared"


@pytest.mark.parametrize("ledger_head", ["x", "A" * 64, "a" * 63, "a" * 64 + "\n", 7])
def test_a_head_that_is_no_hash_is_refused(document: StudyDocument, ledger_head: Any) -> None:
    records = wire.encode(TrainOrder(document, 1))
    records["head"]["ledger_head"] = ledger_head
    with pytest.raises(WireError, match="which is not a hash"):
        wire.decode(records, TrainOrder)


# --- what does not arrive ---------------------------------------------------------------------------------------------


def forged(
    kind: object, head: object, arrays: dict[str, Any] | None = None, version: object = wire.VERSION
) -> RecordDict:
    """Records as another program might make them."""
    text = head if isinstance(head, str) else json.dumps(head)
    config: dict[str, Any] = {"version": version, "kind": kind, "json": text}
    record = ArrayRecord({name: Array(np.asarray(value)) for name, value in (arrays or {}).items()})
    return RecordDict({"head": ConfigRecord(config), "arrays": record})


def head_of(message: Message) -> dict[str, Any]:
    head: dict[str, Any] = json.loads(wire._scalars(message))
    return head


REPORT = TrainReport("demo-1", 1, 1.0, 1e-4, 1.5, "b" * 64)


def test_a_forged_message_is_taken_when_nothing_is_wrong_with_it() -> None:
    assert wire.decode(forged("TrainReport", head_of(REPORT)), TrainReport) == REPORT


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shoe_size": 43}, "shoe_size"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": "1.0"}, "epsilon"),
        ({"epsilon": {"value": 1.0}}, "epsilon"),
        ({"delta": float("nan")}, "delta"),
        ({"round": 0}, "round"),
        ({"round": 1.5}, "round"),
        ({"round": True}, "round"),
        ({"round": [1]}, "round"),
        ({"public_size": 20}, "public_size"),
        ({"ledger_head": "b" * 63}, "ledger_head"),
        ({"ledger_head": "B" * 64}, "ledger_head"),
        ({"ledger_head": None}, "ledger_head"),
        ({"study": "a" * 121}, "study"),
        ({"study": "../../etc"}, "study"),
        ({"study": "demo\n1"}, "study"),
        ({"study": ""}, "study"),
        ({"study": None}, "study"),
        ({"arrays": {"w": [1.0]}}, "arrays"),
    ],
    ids=str,
)
def test_a_field_that_is_wrong_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    with pytest.raises(WireError, match=told):
        wire.decode(forged("TrainReport", head_of(REPORT) | change), TrainReport)


def test_every_problem_is_told_and_each_missing_field() -> None:
    with pytest.raises(WireError) as caught:
        wire.decode(forged("TrainReport", {"round": 0, "study": ""}), TrainReport)
    assert all(name in str(caught.value) for name in ("round", "study", "ledger_head", "epsilon", "delta"))


def test_nested_garbage_in_an_order_is_refused_by_name(document: StudyDocument) -> None:
    head = head_of(TrainOrder(document, 1))
    head["study"]["training"]["steps"] = "many"
    head["study"]["training"]["hook"] = "os.system"
    head["study"]["model"]["weights"] = ["a", "list"]
    with pytest.raises(WireError) as caught:
        wire.decode(forged("TrainOrder", head), TrainOrder)
    assert all(
        name in str(caught.value) for name in ("study.training.steps", "study.training.hook", "study.model.weights")
    )


@pytest.mark.parametrize("version", [0, wire.VERSION + 1, str(wire.VERSION), float("nan"), "x" * 10_000])
def test_another_version_is_refused_with_the_remedy(version: object) -> None:
    with pytest.raises(WireError, match="install one release on both sides") as caught:
        wire.decode(forged("TrainReport", head_of(REPORT), version=version), TrainReport)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", ["TrainOrder", "Refusal", "nonesuch", "", 1, "__class__", "x" * 10_000])
def test_another_kind_is_refused(kind: object) -> None:
    with pytest.raises(WireError, match="where TrainReport is due") as caught:
        wire.decode(forged(kind, head_of(REPORT)), TrainReport)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '"x"', "\x00", "[" * 100_000, '{"study":1e999}'])
def test_a_head_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        wire.decode(forged("TrainReport", text), TrainReport)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"a b": np.zeros(1)}, "a b"),
        ({"": np.zeros(1)}, "''"),
        ({"w" * 201: np.zeros(1)}, "www"),
        ({"[red]": np.zeros(1)}, "red"),
        ({"w": np.array(["text"])}, "<U4"),
        ({"w": np.zeros(2, ">f4")}, ">f4"),
        ({"w": np.zeros(2, np.complex64)}, "c8"),
        ({"w": np.zeros(2, "M8[s]")}, "M8"),
        ({"w": np.zeros(2, np.longdouble)}, "f16"),
    ],
    ids=str,
)
def test_arrays_that_hold_no_plain_numbers_are_refused(arrays: dict[str, Any], told: str) -> None:
    with pytest.raises(WireError, match=told):
        wire.decode(forged("TrainReport", head_of(REPORT), arrays), TrainReport)


def test_no_message_makes_an_error_long(document: StudyDocument) -> None:
    head = head_of(REPORT) | {f"unknown{i}{'x' * 1000}": i for i in range(1000)}
    with pytest.raises(WireError, match=r"and \d+ more") as caught:
        wire.decode(forged("TrainReport", head), TrainReport)
    assert len(str(caught.value)) < 2000


def test_a_pickle_is_never_opened() -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("a pickle from the network was loaded",)

    file = BytesIO()
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    array = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=file.getvalue())
    records = forged("TrainReport", head_of(REPORT))
    records["arrays"] = ArrayRecord({"w": array})
    with pytest.raises(WireError, match="not a Consilium message"):
        wire.decode(records, TrainReport)


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"head": ConfigRecord()}),
        RecordDict({"head": ConfigRecord({"version": 1}), "arrays": ArrayRecord()}),
        RecordDict({"head": MetricRecord({"version": 1}), "arrays": MetricRecord()}),
        RecordDict({"head": ConfigRecord({"version": 1, "kind": "Refusal", "json": b"\xff"}), "arrays": ArrayRecord()}),
    ],
    ids=["nothing", "no arrays", "no kind", "metrics", "bytes"],
)
def test_records_of_another_form_are_refused(records: RecordDict) -> None:
    with pytest.raises(WireError):
        wire.decode(records, TrainReport, Refusal)


def test_an_array_whose_bytes_are_cut_is_refused() -> None:
    whole = Array(np.zeros(100))
    cut = Array(dtype=whole.dtype, shape=tuple(whole.shape), stype=whole.stype, data=whole.data[:50])
    records = forged("TrainReport", head_of(REPORT))
    records["arrays"] = ArrayRecord({"w": cut})
    with pytest.raises(WireError, match="not a Consilium message"):
        wire.decode(records, TrainReport)


@quick
@given(st.binary(max_size=300))
def test_no_bytes_but_a_packed_message_are_unpacked(content: bytes) -> None:
    with pytest.raises(WireError):
        wire.unpack(content, *KINDS)


def test_a_damaged_file_is_refused_or_differs(document: StudyDocument) -> None:
    packed = bytearray(wire.pack(TrainOrder(document, 1, {"w": np.zeros(3, np.float32)})))
    with pytest.raises(WireError):
        wire.unpack(bytes(packed[:-1]), TrainOrder)
    packed[-1] ^= 1
    assert wire.unpack(bytes(packed), TrainOrder).arrays["w"].any()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"asks": "paired"}, "which the study document does not contain"),
        ({"asks": "matrix"}, "which the study document does not contain"),
        ({"asks": "everything"}, "asks"),
        ({"asks": "paired", "paired": 4, "round": 1}, "after the last round only"),
        ({"asks": "matrix", "matrix": 2, "change": {"base": "0" * 64, "result": "1" * 64}}, "with the whole model"),
    ],
)
def test_an_order_asks_for_what_the_study_says_and_when(
    document: StudyDocument, changes: dict[str, Any], says: str
) -> None:
    head = head_of(EvaluateOrder(document, document.rounds))
    for name in ("paired", "matrix"):
        head["study"]["evaluation"][name] = changes.pop(name, 0)
    with pytest.raises(WireError, match=says):
        wire.decode(forged("EvaluateOrder", head | changes), EvaluateOrder)


def test_a_refusal_carries_no_arrays() -> None:
    with pytest.raises(WireError, match="arrays"):
        wire.decode(forged("Refusal", head_of(Refusal("demo-1", 1, ErrorCode.INTERNAL)), {"w": np.zeros(3)}), Refusal)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TrainReport, ("demo-1", 1, 20, float("nan"), 1e-4)),
        (TrainReport, ("demo-1", 1, 20, 1.0, float("inf"))),
        (EvaluateReport, ("demo-1", -1, 1.0, 1e-4, 0.0)),
        (EvaluateReport, ("demo-1", 1, 1.0, 1e-4, -1.0)),
        (Refusal, ("demo-1", 1, "EVERYTHING_BROKE")),
    ],
)
def test_our_own_side_cannot_make_a_message_that_the_other_would_refuse(
    kind: type[Any], values: tuple[Any, ...]
) -> None:
    with pytest.raises(ValidationError):
        kind(*values)
