"""Whatever is sent to a hospital as an order, it answers with a refusal or with what was approved, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.oversight import approvals
from tasks.protocol import wire
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import ErrorCode, EvaluateOrder, Refusal, TrainOrder
from tests.client.hospital import Archive, Hospital, draw_archive, evaluate, read, train
from tests.spread import spread

bounded = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
more = bounded if settings.get_current_profile_name() == "steady" else settings(bounded, max_examples=300)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def closed(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """A hospital that has approved nothing."""
    return Hospital.provision(tmp_path_factory.mktemp("closed"), archive)


@pytest.fixture(scope="module")
def willing(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """One that has, see ``approved``."""
    return Hospital.provision(tmp_path_factory.mktemp("willing"), archive)


def approved(hospital: Hospital, document: StudyDocument) -> Hospital:
    """The hospital, once it has approved the study."""
    with hospital.records() as records:
        known = approvals.decisions(records.audit_log, hospital.settings)
    if not known:
        hospital.approve(document)
    return hospital


WRONG: list[object] = [
    None,
    True,
    0,
    -1,
    2**70,
    1e308,
    5e-324,
    "",
    "x" * 300,
    "../../x",
    "a\0b",
    "\ud800",
    [],
    {},
    [[]],
    {"a": 1},
]
JSON = st.sampled_from(WRONG) | st.integers() | st.floats() | st.text(max_size=8)
WRONG_TEXT = [
    "",
    "null",
    "[]",
    "[" * 50_000,
    '{"study": {',
    "\0",
    '{"round": NaN}',
    '{"round": 1, "round": 2}',
    "1" * 5000,
]


def npy(value: Any, **more: Any) -> bytes:
    stream = BytesIO()
    np.save(stream, value, **more)
    return stream.getvalue()


def npz() -> bytes:
    stream = BytesIO()
    np.savez(stream, a=np.zeros(1))
    return stream.getvalue()


FOUR = np.zeros(4, np.float32)
DATA = [
    *(
        b"",
        npz(),
        b"PK\3\4",
        b"\x93NUMPY",
        npy(FOUR)[:20],
        npy(np.array([{}]), allow_pickle=True),
        npy(np.array(["a"])),
    ),
    npy(FOUR).replace(b"(4,)", b"(9999999999999,)"),
    npy(FOUR).replace(b"(4,)", b"(-4,)"),
    npy(FOUR).replace(b"<f4", b"|O8"),
    *(npy(FOUR.astype(kind)) for kind in (">f4", "c8", "M8[s]", "f2", "f8", "i8", "?")),
    npy(np.zeros((0, 3), np.float32)),
]
FILLS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda value: np.full_like(value, np.nan),
    lambda value: np.full_like(value, -np.inf),
    lambda value: np.full_like(value, 3.4e38),
    lambda value: value[..., :0],
    lambda value: value.astype(np.float64),
    lambda value: value.astype(np.int8),
    lambda value: value.reshape(-1),
    lambda value: np.asarray(value.sum()),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from places(below, (*path, key))


def scalars(draw: st.DrawFn, text: str) -> str:
    """The head's JSON with something else in one or two places."""
    values = json.loads(text)
    for place in draw(st.lists(st.sampled_from(list(places(values))), min_size=1, max_size=2)):
        with suppress(KeyError, IndexError, TypeError):
            holder = values
            for key in place[:-1]:
                holder = holder[key]
            if draw(st.booleans()):
                holder[place[-1]] = draw(JSON)
            elif draw(st.booleans()):
                del holder[place[-1]]
            else:
                holder[draw(st.text(max_size=5))] = draw(JSON)
    return json.dumps(values)


def head_of(draw: st.DrawFn, head: dict[str, Any]) -> dict[str, Any]:
    key = draw(st.sampled_from([*head, "json", "more"]))
    if key == "json" and draw(st.booleans()):
        return head | {key: scalars(draw, head["json"])}
    odd = st.sampled_from(
        [0, 3, 4, 5, -1, 4.0, "4", "", b"x", [4], ["a"], *WRONG_TEXT, "TrainReport", "0" * 64, "f" * 63]
    )
    return {k: v for k, v in head.items() if k != key} if draw(st.booleans()) else head | {key: draw(odd)}


def arrays_of(draw: st.DrawFn, arrays: dict[str, Array]) -> dict[str, Array]:
    name = draw(st.sampled_from(sorted(arrays)))
    old = arrays[name]
    match draw(st.integers(0, 4)):
        case 0:
            data = draw(st.sampled_from(DATA) | st.binary(max_size=40))
            new = Array(dtype=old.dtype, shape=old.shape, stype=old.stype, data=data)
        case 1:
            new = Array(
                dtype="", shape=(-1, 2**40), stype=draw(st.sampled_from(["", "pickle", old.stype])), data=old.data
            )
        case 2:
            new = Array(draw(st.sampled_from(FILLS))(old.numpy()))
        case 3:
            return {k: v for k, v in arrays.items() if k != name}
        case _:
            odd = st.sampled_from(
                ["", "a" * 300, "../x", "other-model." + name, "control-variate." + name, "score-edges"]
            )
            return arrays | {draw(odd | st.text(max_size=5)): old}
    return arrays | {name: new}


@st.composite
def mutated(draw: st.DrawFn, order: TrainOrder | EvaluateOrder) -> RecordDict:
    """An order as it travels, in which the head, the tensors or the records are not as they should be."""
    sent = wire.encode(order)
    if draw(st.integers(0, 9)) == 0:
        packed = draw(st.binary(max_size=40) | st.just(bytes(sent["head"]["arrays"])[:-1]))
        return RecordDict({"head": ConfigRecord({**sent.config_records["head"], "arrays": packed})})
    sent = spread(sent)
    head, arrays = dict(sent.config_records["head"]), dict(sent.array_records["arrays"])
    what = draw(st.integers(0, 8))
    if what <= 3:
        head = head_of(draw, head)
    elif what <= 7:
        arrays = arrays_of(draw, arrays)
    records: dict[str, Any] = {"head": ConfigRecord(head), "arrays": ArrayRecord(arrays)}
    if what == 8:
        key = draw(st.sampled_from(["head", "arrays", "more"]))
        other = st.sampled_from([None, ConfigRecord({"a": 1}), MetricRecord({"a": 1.0}), ArrayRecord({})])
        records = {k: v for k, v in (records | {key: draw(other)}).items() if v is not None}
    return RecordDict(records)


def answer(hospital: Hospital, content: RecordDict, action: str) -> Any:
    """What it answers; the log tells of a fault of ours by a traceback."""
    before = len(hospital.log())
    reply = read(hospital.send(content, action))
    assert "Traceback" not in hospital.log()[before:], hospital.log()[before:]
    assert not isinstance(reply, Refusal) or reply.code is not ErrorCode.INTERNAL
    return reply


@given(data=st.data())
@more
def test_a_hospital_that_approved_nothing_refuses_everything(
    closed: Hospital, document: StudyDocument, data: st.DataObject
) -> None:
    order = train(document) if data.draw(st.booleans()) else evaluate(document)
    action = data.draw(st.sampled_from(["train", "evaluate"]))
    assert isinstance(answer(closed, data.draw(mutated(order)), action), Refusal)
    assert closed.entries() == []


@given(data=st.data())
@more
def test_a_hospital_that_approved_a_study_answers_that_study_or_refuses(
    willing: Hospital, document: StudyDocument, data: st.DataObject
) -> None:
    approved(willing, document)
    kind = data.draw(st.sampled_from([TrainOrder, EvaluateOrder]))
    content = data.draw(mutated(train(document) if kind is TrainOrder else evaluate(document)))
    before = len(willing.entries())
    reply = answer(willing, content, "train" if kind is TrainOrder else "evaluate")
    if isinstance(reply, Refusal):
        assert len(willing.entries()) == before, "a refusal costs nothing"
    else:
        assert wire.decode(content, kind).study == document, "only what was approved is answered"


@pytest.mark.parametrize("text", WRONG_TEXT, ids=lambda text: repr(text[:12]))
@pytest.mark.parametrize("where", ["json", "kind", "ledger_head"])
def test_a_head_that_is_nonsense_is_a_bad_order(
    closed: Hospital, document: StudyDocument, text: str, where: str
) -> None:
    sent = wire.encode(train(document))
    head = ConfigRecord({**sent.config_records["head"], where: text})
    reply = answer(closed, RecordDict({**sent, "head": head}), "train")
    assert isinstance(reply, Refusal)
    assert reply.code is (ErrorCode.NOT_APPROVED if (where, text) == ("ledger_head", "") else ErrorCode.BAD_ORDER)


@pytest.mark.parametrize("data", DATA, ids=lambda data: repr(data[:6]))
def test_bytes_that_are_no_tensor_are_refused(closed: Hospital, document: StudyDocument, data: bytes) -> None:
    sent = spread(wire.encode(train(document)))
    arrays = dict(sent.array_records["arrays"])
    name = min(arrays)
    arrays[name] = Array(dtype="float32", shape=(4,), stype="numpy.ndarray", data=data)
    records = RecordDict({"head": sent.config_records["head"], "arrays": ArrayRecord(arrays)})
    assert isinstance(answer(closed, records, "train"), Refusal)


def test_a_proper_order_passes_the_same_way(willing: Hospital, document: StudyDocument) -> None:
    """Or everything above would be refused for a reason of its own."""
    assert not isinstance(answer(approved(willing, document), wire.encode(train(document)), "train"), Refusal)
