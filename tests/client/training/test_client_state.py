"""What lies at a hospital between rounds: its own parts, and the model that orders change. Killed at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

import client.app
from client.ledger.audit_log import norm_of
from client.ledger.ledger import Ledger
from client.training import client_state
from client.training.scoring import tell_patients
from tasks.protocol import encoding, wire
from tasks.protocol.study import Encoding, MethodTerms, StudyDocument, WireTerms
from tasks.protocol.wire import (
    CONTROL,
    Arrays,
    ErrorCode,
    EvaluateOrder,
    EvaluateReport,
    ModelChange,
    Refusal,
    TrainOrder,
    TrainReport,
)
from tests.client.hospital import Archive, Hospital, draw_archive, evaluate, train, weights
from tests.client.reserving import plan_noise

SCAFFOLD, DITTO = MethodTerms(control_variates=True), MethodTerms(personal=0.5)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def hospital(tmp_path: Path, archive: Archive) -> Hospital:
    return Hospital.provision(tmp_path, archive)


def approved(hospital: Hospital, document: StudyDocument, **changes: Any) -> StudyDocument:
    study = replace(document, **changes)
    hospital.approve(study)
    return study


def scaffold_order(study: StudyDocument, round: int) -> TrainOrder:
    model = weights(study)
    c = {CONTROL + name: np.full_like(value, 0.01 * round) for name, value in model.items()}
    return TrainOrder(study, round, model | c)


def own(hospital: Hospital, study: StudyDocument) -> Arrays:
    with hospital.records() as records:
        return client_state.read(hospital.settings, records.ledger, study.name, "train")


def files(hospital: Hospital) -> list[Path]:
    return sorted(hospital.settings.kept.glob("*~*"))


def once(error: BaseException, do: Callable[..., Any]) -> Callable[..., Any]:
    """Does it, and then fails as a killed process would, the first time."""
    left = [error]

    def spoilt(*given: Any) -> Any:
        if left:
            raise left.pop()
        return do(*given)

    return spoilt


# --- its own parts ----------------------------------------------------------------------------------------------------


def test_control_variates_are_there_in_the_next_round_and_only_for_their_owner(
    hospital: Hospital, document: StudyDocument
) -> None:
    study = approved(hospital, document, method=SCAFFOLD)
    assert own(hospital, study) == {}
    first = hospital.ask(scaffold_order(study, 1))
    assert isinstance(first, TrainReport)
    after = own(hospital, study)
    move = np.float32(8.0 * 3)
    for name, value in first.arrays.items():
        np.testing.assert_allclose(after[f"variate/{name}"], -np.float32(0.01) - value / move, atol=1e-7)
    assert isinstance(hospital.ask(scaffold_order(study, 2)), TrainReport)
    assert not np.array_equal(own(hospital, study)["variate/weight"], after["variate/weight"])
    assert all(path.stat().st_mode & 0o077 == 0 for path in files(hospital))
    assert len(files(hospital)) == 2, "what is older than the last committed order goes"


@pytest.mark.parametrize("where", ["before it is kept", "before it is committed", "before it is sent"])
def test_a_round_that_was_killed_is_computed_again_from_where_it_started(
    hospital: Hospital, document: StudyDocument, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = approved(hospital, document, method=SCAFFOLD)
    hospital.ask(scaffold_order(study, 1))
    before = own(hospital, study)
    broken: tuple[Any, str] = {
        "before it is kept": (client_state, "write"),
        "before it is committed": (Ledger, "commit"),
        "before it is sent": (client.app.AuditLog, "append_receipt"),  # type: ignore[attr-defined]
    }[where]
    monkeypatch.setattr(*broken, once(RuntimeError("killed"), getattr(*broken)))
    assert hospital.ask(scaffold_order(study, 2)) == Refusal(study.name, 2, ErrorCode.INTERNAL)
    if where == "before it is sent":
        sent = hospital.ask(scaffold_order(study, 2))
        assert isinstance(sent, TrainReport)
        assert len(hospital.entries()) == 2
    else:
        assert own(hospital, study)["variate/weight"].tobytes() == before["variate/weight"].tobytes()
        sent = hospital.ask(scaffold_order(study, 2))
        assert isinstance(sent, TrainReport)
        assert len(hospital.entries()) == 3, "the lost reservation stands"
    c, move = np.float32(0.02), np.float32(8.0 * 3)
    for name, value in sent.arrays.items():
        expected = before[f"variate/{name}"] - c - value / move
        np.testing.assert_allclose(own(hospital, study)[f"variate/{name}"], expected, atol=1e-7)


def test_what_is_kept_and_lost_stops_the_hospital_and_not_the_guarantee(
    hospital: Hospital, document: StudyDocument
) -> None:
    study = approved(hospital, document, method=SCAFFOLD)
    hospital.ask(scaffold_order(study, 1))
    (file,) = files(hospital)
    content = file.read_bytes()
    for spoil in (lambda: file.write_bytes(content[:40]), file.unlink):
        spoil()
        assert hospital.ask(scaffold_order(study, 2)) == Refusal(study.name, 2, ErrorCode.SITE_MISCONFIGURED)
        assert len(hospital.entries()) == 1
    assert "restore it from your backup" in hospital.log()
    file.write_bytes(content)
    assert isinstance(hospital.ask(scaffold_order(study, 2)), TrainReport)


def test_a_personal_model_is_paid_for_and_is_what_scores(
    hospital: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = approved(hospital, document, method=DITTO)
    assert isinstance(hospital.ask(train(study, 1)), TrainReport)
    (entry,) = hospital.entries()
    assert entry.mechanism.count == 6, "three steps of each model"
    assert entry.mechanism.noise_multiplier == plan_noise([], 0.8, 12, 8.0, 1e-4)

    scored = []

    def look(module: Any, cohort: Any, *_on: Any) -> Any:
        scored.append({name: p.detach().numpy().copy() for name, p in module.named_parameters()})
        return tell_patients(module, cohort)

    monkeypatch.setattr(client.app, "tell_patients", look)
    assert isinstance(hospital.ask(evaluate(study)), EvaluateReport)
    for name, value in scored[0].items():
        np.testing.assert_array_equal(value, own(hospital, study)[f"personal/{name}"])
    assert isinstance(hospital.ask(train(study, 2)), TrainReport)
    assert 0.97 * 8 <= hospital.spent() <= 8


# --- as often as the study says ---------------------------------------------------------------------------------------


def test_noise_is_planned_for_the_rounds_in_which_the_hospital_is_asked(
    hospital: Hospital, document: StudyDocument
) -> None:
    study = approved(hospital, document, rounds=10, asked=2)
    assert isinstance(hospital.ask(train(study, 3)), TrainReport)
    assert isinstance(hospital.ask(train(study, 8)), TrainReport)
    assert [entry.mechanism.noise_multiplier for entry in hospital.entries()] == [plan_noise([], 0.8, 6, 8.0, 1e-4)] * 2
    assert 0.97 * 8 <= hospital.spent() <= 8
    assert hospital.ask(train(study, 9)) == Refusal(study.name, 9, ErrorCode.NOT_PERMITTED)
    assert len(hospital.entries()) == 2
    assert "at most 2 time(s)" in hospital.log()


# --- models that travel as changes ------------------------------------------------------------------------------------


def changed(study: StudyDocument, base: Arrays, seed: int) -> tuple[Arrays, Arrays, ModelChange]:
    """A later model, its change as it travels, and what the change says."""
    rng, form = np.random.default_rng(seed), study.wire.down
    meant = {name: rng.normal(scale=0.1, size=value.shape).astype(np.float32) for name, value in base.items()}
    coded = encoding.shrink(meant, form)
    change = encoding.restore(coded, form, base)
    after = {name: value + change[name] for name, value in base.items()}
    return after, coded, ModelChange(wire.digest_of_arrays(base), wire.digest_of_arrays(after))


@pytest.mark.parametrize("down", ["float16", "int8"])
def test_a_model_arrives_whole_then_as_its_change_then_not_at_all(
    hospital: Hospital, document: StudyDocument, down: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = approved(hospital, document, wire=WireTerms(down=down))
    first = weights(study)
    seen: list[Arrays] = []

    def look(module: Any, cohort: Any, *_on: Any) -> Any:
        seen.append({name: p.detach().numpy().copy() for name, p in module.named_parameters()})
        return tell_patients(module, cohort)

    monkeypatch.setattr(client.app, "tell_patients", look)
    assert isinstance(hospital.ask(train(study, 1)), TrainReport)
    second, coded, change = changed(study, first, 1)
    assert isinstance(hospital.ask(EvaluateOrder(study, 1, coded, change)), EvaluateReport)
    for name, value in second.items():
        np.testing.assert_array_equal(seen[0][name], value)

    same = ModelChange(change.result, change.result)
    reply = hospital.ask(TrainOrder(study, 2, {}, same))
    assert isinstance(reply, TrainReport)
    whole = TrainOrder(study, 2, second)
    assert hospital.entries()[-1].use.order_digest == wire.digest(whole), "one order, however it travelled"
    assert wire.pack(hospital.ask(whole)) == wire.pack(reply)


def test_a_change_of_what_is_not_held_is_refused_and_costs_nothing(hospital: Hospital, document: StudyDocument) -> None:
    study = approved(hospital, document, wire=WireTerms(down="int8"))
    first = weights(study)
    second, coded, change = changed(study, first, 1)
    not_held = Refusal(study.name, 1, ErrorCode.NOT_HELD)
    assert hospital.ask(TrainOrder(study, 1, coded, change)) == not_held, "nothing was ever held"
    assert isinstance(hospital.ask(evaluate(study)), EvaluateReport)
    third, more, next_change = changed(study, second, 2)
    assert hospital.ask(TrainOrder(study, 1, more, next_change)) == not_held, "another base"
    wrong = ModelChange(change.base, next_change.result)
    assert hospital.ask(TrainOrder(study, 1, coded, wrong)) == not_held, "another result"
    assert len([e for e in hospital.entries() if e.use.cohort == "train"]) == 0
    assert isinstance(hospital.ask(TrainOrder(study, 1, coded, change)), TrainReport)
    (held,) = hospital.settings.kept.glob("*.model.safetensors")
    assert load(held.read_bytes()).keys() == third.keys()
    held.write_bytes(b"half a file")
    assert hospital.ask(TrainOrder(study, 2, more, next_change)) == replace(not_held, round=2)


def test_a_change_in_a_study_whose_models_travel_whole_is_a_bad_order(
    hospital: Hospital, document: StudyDocument
) -> None:
    study = approved(hospital, document)
    change = ModelChange("0" * 64, "0" * 64)
    assert hospital.ask(TrainOrder(study, 1, {}, change)) == Refusal(study.name, 1, ErrorCode.BAD_ORDER)
    lean_one = approved(hospital, document, name="lean", wire=WireTerms(down="int8"))
    assert isinstance(hospital.ask(evaluate(lean_one)), EvaluateReport)
    _, coded, change = changed(lean_one, weights(lean_one), 1)
    spoilt = coded | {"int8.codes": coded["int8.codes"][:5]}
    assert hospital.ask(TrainOrder(lean_one, 1, spoilt, change)) == Refusal("lean", 1, ErrorCode.BAD_ORDER)


# --- updates in fewer bits --------------------------------------------------------------------------------------------


def test_an_update_in_eight_bits_is_what_the_receipt_says(hospital: Hospital, document: StudyDocument) -> None:
    study = approved(hospital, document, wire=WireTerms(up="int8"))
    reply = hospital.ask(train(study, 1))
    assert isinstance(reply, TrainReport)
    assert reply.arrays.keys() == {"int8.codes", "int8.scales"}
    seen = encoding.restore(reply.arrays, "int8", weights(study))
    receipt = hospital.receipts()[-1]
    assert receipt.update_norm == pytest.approx(norm_of(seen), rel=1e-6)
    assert receipt.tensors.keys() == reply.arrays.keys()
    lost = own(hospital, study)
    assert lost.keys() == {"lost/weight", "lost/bias"}
    largest = max(np.abs(value).max() for value in seen.values())
    assert all(np.abs(value).max() <= largest / 100 for value in lost.values()), "a step is a 127th of the largest"


def test_an_upload_is_measured_in_the_form_in_which_it_leaves(
    tmp_path: Path, archive: Archive, document: StudyDocument
) -> None:
    values = sum(value.size for value in weights(document).values())
    room = encoding.largest_size("int8", values)
    assert room < 4 * values
    hospital = Hospital.provision(tmp_path, archive, policy={"max_upload_bytes": room})
    eight = approved(hospital, document, wire=WireTerms(up="int8"))
    whole = approved(hospital, document, name="whole")
    assert isinstance(hospital.ask(train(eight)), TrainReport)
    assert hospital.ask(train(whole)) == Refusal("whole", 1, ErrorCode.NOT_PERMITTED)
