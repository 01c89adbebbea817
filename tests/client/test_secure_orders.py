"""A coordinator that plays peers, shows other rosters, replays and reorders: refused before a patient is touched."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import client.app
from client.oversight import approvals, premises
from client.secure_sum import own_key
from client.secure_sum.pads import Pads
from tasks.machine.disk import private_folder
from tasks.protocol import enrolment, study, sum_key, wire
from tasks.protocol.secure_sum import WORDS, decode, grid
from tasks.protocol.study import EvaluationTerms, PrivacyTerms, SecureSumTerms, StudyDocument
from tasks.protocol.sum_key import Deputy, SumKey
from tasks.protocol.wire import (
    ErrorCode,
    EvaluateOrder,
    KeyOrder,
    KeyReport,
    Refusal,
    SumAttempt,
    TrainOrder,
    TrainReport,
    WireError,
)
from tests.client.hospital import Archive, Hospital, draw_archive, weights

PEERS = ("alder", "birch", "cedar")
OWN = "st-anne"


def _deputy() -> tuple[bytes, Deputy]:
    enrolled = enrolment.new_key()
    return enrolled, sum_key.read_deputy(sum_key.new_deputy(enrolled))


DEPUTIES = {name: _deputy() for name in (*PEERS, "stranger")}
SECRETS = {name: X25519PrivateKey.generate() for name in DEPUTIES}
FINGERPRINTS = {name: enrolment.own_fingerprint(enrolled) for name, (enrolled, _) in DEPUTIES.items()}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def hospital(archive: Archive, tmp_path: Path) -> Hospital:
    sums = {"least_hospitals": 3, "colluding": 1, "peers": [FINGERPRINTS[name] for name in PEERS]}
    caps = {"max_epsilon_alone": 60.0, "max_epsilon_alone_life": 100.0}
    founded = Hospital.provision(tmp_path / "site", archive, policy={"secure_sum": sums | caps})
    enrolled = enrolment.new_key()
    own_key.write_deputy(private_folder(founded.settings.link), enrolled)
    return founded


@pytest.fixture
def asked(document: StudyDocument, hospital: Hospital) -> StudyDocument:
    """Ten shared steps and figures, which the hospital has approved."""
    return _approved(hospital, _shared(document, hospital))


def _shared(document: StudyDocument, hospital: Hospital, **changes: Any) -> StudyDocument:
    peers = {name: FINGERPRINTS[name] for name in PEERS} | {OWN: own_key.fingerprint(hospital.settings)}
    terms = SecureSumTerms(True, True, 3, 1, 2, 1, peers) if "secure_sum" not in changes else changes["secure_sum"]
    sizes = dict.fromkeys(peers, 200)
    return replace(
        document,
        rounds=10,
        asked=10,
        training=replace(document.training, steps=1, sample_rate=1.0, momentum=0.0, weight_decay=0.0),
        privacy=PrivacyTerms(8.0, 1e-4, 0.5),
        evaluation=EvaluationTerms(1, 8, 4.0),
        sizes=sizes,
        **{"secure_sum": terms} | changes,
    )


def _approved(hospital: Hospital, document: StudyDocument) -> StudyDocument:
    with hospital.records() as records:
        approvals.approve(document, "Dr. Ada Noor", records.audit_log, hospital.settings)
    return document


def _query(hospital: Hospital, order: KeyOrder) -> KeyReport | Refusal:
    return wire.decode(hospital.send(wire.encode(order), "query"), KeyReport, Refusal)


def _own(hospital: Hospital, document: StudyDocument) -> SumKey:
    reply = _query(hospital, KeyOrder(document, 0))
    assert isinstance(reply, KeyReport), reply
    return reply.key


def _key(name: str, document: StudyDocument, signed_as: str = "") -> SumKey:
    deputy = DEPUTIES[signed_as or name][1]
    return sum_key.signed(deputy, name, study.digest(document), SECRETS[name].public_key())


def _roster(hospital: Hospital, document: StudyDocument, *keys: SumKey) -> list[SumKey]:
    peers = keys or tuple(_key(name, document) for name in PEERS)
    return sorted([*peers, _own(hospital, document)], key=lambda each: each.hospital)


def _train(
    hospital: Hospital, document: StudyDocument, round: int = 1, number: int = 1, roster: list[SumKey] | None = None,
    shift: float = 0.0,
) -> TrainOrder:  # fmt: skip
    arrays = {name: value + np.float32(shift) for name, value in weights(document).items()}
    attempt = SumAttempt(number, roster or _roster(hospital, document))
    return TrainOrder(document, round, arrays, attempt=attempt)


@pytest.fixture
def untouched() -> Any:
    """No cohort is opened meanwhile."""
    with patch.object(client.app, "open_cohort", side_effect=AssertionError("a patient was touched")):
        yield


def _code(reply: object) -> ErrorCode:
    assert isinstance(reply, Refusal), reply
    return reply.code


def test_a_hospital_tells_a_key_that_its_peers_believe(hospital: Hospital, asked: StudyDocument) -> None:
    key = _own(hospital, asked)
    assert sum_key.fingerprint_of(key, study.digest(asked)) == own_key.fingerprint(hospital.settings)
    assert _own(hospital, asked).key == key.key, "one key a study"
    assert hospital.entries() == [], "it concerns no patient"
    assert [receipt.message for receipt in hospital.receipts()] == ["KeyReport", "KeyReport"]


def test_its_part_is_the_noised_sum_once_the_pads_of_all_others_are_known(
    hospital: Hospital, asked: StudyDocument
) -> None:
    order = _train(hospital, asked)
    report = hospital.ask(order)
    assert isinstance(report, TrainReport), hospital.log()
    (entry,) = hospital.entries()
    assert (entry.use.attempt, entry.mechanism.count) == (1, 1)
    assert report.noise_multiplier == entry.mechanism.noise_multiplier > entry.alone.noise_multiplier
    assert entry.alone.noise_multiplier == pytest.approx(entry.mechanism.noise_multiplier / np.sqrt(3), abs=1e-4)
    assert report.epsilon is not None
    assert report.epsilon_alone is not None
    assert report.epsilon < report.epsilon_alone
    words = report.arrays[WORDS]
    assert words.dtype == np.uint32
    common = grid(report.noise_multiplier, 0.5, hospitals=4, colluding=1, patients=800)
    masked = np.abs(decode(words, common)).mean()
    for name in PEERS:
        assert order.attempt is not None
        pads = Pads(SECRETS[name], name, order.attempt.roster, wire.digest(order), "train")
        pads._keys = {OWN: pads._keys[OWN]}
        words = words + pads.mask(np.zeros(len(words), np.uint32), common)
    opened = decode(words, common)
    std = entry.alone.noise_multiplier * 0.5
    assert masked > 1000 * std
    assert np.abs(opened).max() < 30 * std + 24 * 0.5
    assert opened.std() > 0.8 * std, "its own share of the noise is in it"


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("roster", "why"),
    [
        (lambda h, d: _roster(h, d, *(_key(n, d, signed_as="stranger") for n in PEERS)), "the study names"),
        (lambda h, d: _roster(h, d, *(_key(n, d) for n in ("alder", "birch", "stranger"))), "not part of the study"),
        (lambda h, d: _roster(h, d, _key("alder", d), _key("birch", replace(d, name="other"))), "not signed for this"),
        (lambda h, d: _roster(h, d, _key("alder", d)), "2 hospitals are on the roster, at least 3"),
        (lambda h, d: [_key(n, d) for n in PEERS], "itself is not on the roster"),
        (
            lambda h, d: [*_roster(h, d)[:3], replace(_own(h, d), key=_key("stranger", d).key)],
            "another key of st-anne",
        ),
    ],
    ids=["the coordinator plays the peers", "a stranger", "a key of another study", "too few", "without it", "swapped"],
)
def test_a_roster_of_others_than_the_pinned_peers_is_refused(
    hospital: Hospital, asked: StudyDocument, roster: Callable[[Hospital, StudyDocument], list[SumKey]], why: str
) -> None:
    order = _train(hospital, asked, roster=roster(hospital, asked))
    assert _code(hospital.ask(order)) == ErrorCode.PEERS_REFUSED
    assert why in hospital.log()
    assert hospital.entries() == []


@pytest.mark.usefixtures("untouched")
def test_a_signature_with_any_bit_turned_is_refused(hospital: Hospital, asked: StudyDocument) -> None:
    for field in ("key", "deputised", "signature", "identity", "deputy"):
        peer = _key("birch", asked)
        raw = bytearray(base64.b64decode(getattr(peer, field)))
        raw[len(raw) // 2] ^= 1
        wrong = replace(peer, **{field: sum_key.encoded(bytes(raw))})
        roster = _roster(hospital, asked, _key("alder", asked), wrong, _key("cedar", asked))
        assert _code(hospital.ask(_train(hospital, asked, roster=roster))) == ErrorCode.PEERS_REFUSED, field
    assert hospital.entries() == []


def test_a_used_tag_is_never_computed_again(hospital: Hospital, asked: StudyDocument) -> None:
    """Killed over it, or answered with other weights, or asked out of order: a pad serves once."""
    roster = _roster(hospital, asked)
    first = _train(hospital, asked, 1, 1, roster)
    killed = patch.object(client.app.report, "summed_train_report", side_effect=KeyboardInterrupt)
    with killed, suppress(KeyboardInterrupt):
        hospital.ask(first)
    (lost,) = hospital.entries()
    assert lost.committed is None
    with patch.object(client.app, "open_cohort", side_effect=AssertionError("a patient was touched")):
        assert _code(hospital.ask(first)) == ErrorCode.TAG_USED, "the very order"
        assert _code(hospital.ask(_train(hospital, asked, 1, 1, roster, shift=0.1))) == ErrorCode.TAG_USED
    second = _train(hospital, asked, 2, 1, roster)
    report = hospital.ask(second)
    assert isinstance(report, TrainReport)
    again = hospital.ask(second)
    assert isinstance(again, TrainReport)
    assert again.arrays[WORDS].tobytes() == report.arrays[WORDS].tobytes(), "a stored reply goes out again"
    with patch.object(client.app, "open_cohort", side_effect=AssertionError("a patient was touched")):
        for round, number in ((1, 1), (1, 2), (2, 1)):
            code = _code(hospital.ask(_train(hospital, asked, round, number, roster, shift=0.2)))
            assert code == ErrorCode.TAG_USED, "replayed or reordered"
    assert isinstance(hospital.ask(_train(hospital, asked, 2, 2, roster)), TrainReport)
    assert len(hospital.entries()) == 3


def test_its_attempts_are_charged_and_have_an_end(hospital: Hospital, asked: StudyDocument) -> None:
    """Ten steps and two spare ones: what comes after has no budget, on either account."""
    roster = _roster(hospital, asked)
    for number in range(1, 13):
        report = hospital.ask(_train(hospital, asked, 1, number, roster))
        assert isinstance(report, TrainReport), hospital.log()
    assert report.epsilon == pytest.approx(hospital.spent())
    assert report.epsilon <= 8.0
    assert _code(hospital.ask(_train(hospital, asked, 1, 13, roster))) == ErrorCode.BUDGET_EXHAUSTED
    assert "spare attempts included" in hospital.log()


def test_a_smaller_roster_is_charged_with_its_own_share(hospital: Hospital, asked: StudyDocument) -> None:
    hospital.ask(_train(hospital, asked, 1, 1))
    few = _roster(hospital, asked, _key("alder", asked), _key("birch", asked))
    report = hospital.ask(_train(hospital, asked, 1, 2, few))
    assert isinstance(report, TrainReport), hospital.log()
    whole, smaller = hospital.entries()
    assert smaller.mechanism == whole.mechanism
    assert smaller.alone.noise_multiplier == pytest.approx(whole.mechanism.noise_multiplier / np.sqrt(2), abs=1e-4)


@pytest.mark.usefixtures("untouched")
def test_small_noise_never_leaves_outside_of_a_sum(hospital: Hospital, asked: StudyDocument) -> None:
    """The wrong version answers an order without an attempt with its share of the noise in the open."""
    with pytest.raises(ValueError, match="secure sum"):
        TrainOrder(asked, 1, weights(asked))
    whole = _train(hospital, asked)
    content = wire.encode(whole)
    head = content.config_records["head"]
    scalars = json.loads(str(head["json"]))
    scalars["attempt"] = None
    head["json"] = json.dumps(scalars)
    with pytest.raises(WireError, match="secure sum"):
        wire.decode(content, TrainOrder)
    assert _code(wire.decode(hospital.send(content, "train"), TrainReport, Refusal)) == ErrorCode.BAD_ORDER
    with pytest.raises(ValueError, match="no secure sum"):
        EvaluateOrder(replace(asked, secure_sum=replace(asked.secure_sum, figures=False)), 10, attempt=whole.attempt)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"secure_sum": None}, "policy.secure_sum"),
        ({"least_hospitals": 4}, "least_hospitals is 4"),
        ({"colluding": 2, "least_hospitals": 4}, "colluding is 2"),
        ({"peers": [FINGERPRINTS["alder"], FINGERPRINTS["birch"]]}, "cedar has the key"),
        ({"max_epsilon_study": 4.0}, "shared noise for an epsilon of 8"),
        ({"max_delta": 1e-5}, "shared noise for a delta"),
    ],
)
def test_the_policy_decides_with_whom_and_how(
    hospital: Hospital, asked: StudyDocument, policy: dict[str, Any], why: str
) -> None:
    """Each with the setting that decides it; caps that are stricter cannot add to a noise that all have agreed on."""
    roster = _roster(hospital, asked)
    before = hospital.settings.policy
    sums = before.secure_sum.model_dump() if before.secure_sum is not None else {}
    own = {name: value for name, value in policy.items() if name in sums}
    changed = policy if "secure_sum" in policy or not own else {"secure_sum": sums | own}
    hospital.change(policy=changed)
    with hospital.records() as records:
        if premises.change_of(hospital.settings, records.ledger) is not None:
            premises.rebase(hospital.settings, records, "Dr. Ada Noor")
    assert _code(hospital.ask(_train(hospital, asked, roster=roster))) == ErrorCode.NOT_PERMITTED
    assert _code(_query(hospital, KeyOrder(asked, 1))) == ErrorCode.NOT_PERMITTED
    assert why in hospital.log()
    assert hospital.entries() == []


def test_what_all_others_could_learn_has_a_cap_of_its_own(document: StudyDocument, hospital: Hospital) -> None:
    sums = hospital.settings.policy.secure_sum
    assert sums is not None
    hospital.change(policy={"secure_sum": sums.model_dump() | {"max_epsilon_alone": 9.0}})
    with hospital.records() as records:
        premises.rebase(hospital.settings, records, "Dr. Ada Noor")
    asked = _approved(hospital, _shared(document, hospital))
    assert _code(hospital.ask(_train(hospital, asked))) == ErrorCode.BUDGET_EXHAUSTED
    assert "if all other hospitals conspire" in hospital.log()
    assert hospital.entries() == []


@pytest.mark.usefixtures("untouched")
def test_books_that_were_put_back_do_not_use_a_pad_twice(hospital: Hospital, asked: StudyDocument) -> None:
    """The coordinator replays what it asked before the backup was restored, and does not tell what it has seen."""
    roster = _roster(hospital, asked)
    (path,) = hospital.settings.kept.glob("*.sum-key")
    path.write_bytes(path.read_bytes()[:32] + b"ef" * 32)  # the ledger has lost the row at which it was used last
    assert _code(hospital.ask(_train(hospital, asked, 1, 1, [*roster]))) == ErrorCode.LEDGER_BROKEN
    assert "a pad could be used twice" in hospital.log()
    path.unlink()
    assert _own(hospital, asked) not in roster, "with a new key there are new pads"


def test_the_key_notes_the_row_of_every_use(hospital: Hospital, asked: StudyDocument) -> None:
    hospital.ask(_train(hospital, asked))
    (path,) = hospital.settings.kept.glob("*.sum-key")
    noted = path.read_bytes()[32:].decode()
    with hospital.records() as records:
        rows = {row.hash: row.kind for row in records.ledger._chain.rows()}
    assert rows[noted] == "reserved"
    assert path.stat().st_mode & 0o077 == 0


def test_an_evaluation_for_all_together_leaves_masked(hospital: Hospital, asked: StudyDocument) -> None:
    attempt = SumAttempt(1, _roster(hospital, asked))
    report = hospital.ask(EvaluateOrder(asked, 10, weights(asked), attempt=attempt))
    assert not isinstance(report, Refusal), hospital.log()
    assert report.arrays.keys() == {WORDS}
    assert report.arrays[WORDS].shape == (16,)
    (entry,) = hospital.entries()
    assert (entry.use.cohort, entry.mechanism.count, entry.use.attempt) == ("validation", 1, 1)
    assert entry.alone.noise_multiplier < entry.mechanism.noise_multiplier
