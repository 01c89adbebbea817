"""The document that a person approves: one digest for one meaning, and nothing in it that was not agreed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.protocol import study
from tasks.protocol.study import AnswerTerms, BadDocument, EvaluationTerms, PrivacyTerms, StudyDocument, TrainingTerms
from tests import spoiling
from tests.spoiling import MANY


def test_a_document_is_read_back_however_it_is_spaced(document: StudyDocument) -> None:
    text = study.canonical(document)
    assert study.read(text) == document
    assert study.read(json.dumps(json.loads(text), indent=4)) == document


def test_who_asks_is_part_of_what_is_approved_where_somebody_asks(document: StudyDocument) -> None:
    asked = replace(document, asked_by="rosalind")
    assert study.read(study.canonical(asked)) == asked
    assert len({study.digest(one) for one in (document, asked, replace(document, asked_by="ada"))}) == 3
    assert "asked_by" not in study.canonical(document), "documents without a name keep their digest"
    for name in ("a b", "\x1b[31m", "x" * 121, "<b>"):
        with pytest.raises((BadDocument, ValueError)):
            study.read(study.canonical(asked).replace("rosalind", name))


def test_draws_can_be_known_only_where_no_privacy_is_asked_for(document: StudyDocument) -> None:
    open_to_all = replace(document, privacy=replace(document.privacy, epsilon=None))
    seeded = replace(open_to_all, seed=0)
    assert study.read(study.canonical(seeded)) == seeded
    assert len({study.digest(one) for one in (open_to_all, seeded, replace(seeded, seed=1))}) == 3
    assert "seed" not in study.canonical(open_to_all), "documents without a seed keep their digest"
    with pytest.raises(ValueError, match="nobody may know who is drawn"):
        replace(document, seed=0)
    private = json.loads(study.canonical(document)) | {"seed": 0}
    with pytest.raises(BadDocument, match="nobody may know who is drawn"):
        study.read(json.dumps(private))


def test_a_rate_rises_over_its_first_rounds_and_falls_as_it_is_told() -> None:
    def rates(rounds: int, **how: Any) -> list[float]:
        terms = TrainingTerms(10, 1.0, 0.0, 0.0, 0.4, 1, 0.1, **how)
        return [terms.rate_in(number, rounds) for number in range(1, rounds + 1)]

    assert rates(3) == pytest.approx([1, math.sqrt(0.1), 0.1])
    assert rates(3, decay="cosine") == pytest.approx([1, 0.55, 0.1])
    assert rates(5, decay="cosine", warm_up=2) == pytest.approx([1 / 3, 2 / 3, 1, 0.55, 0.1])
    assert rates(3, warm_up=2) == pytest.approx([1 / 3, 2 / 3, 1])


def test_how_a_hospital_trains_is_told_where_it_is_not_as_ever(document: StudyDocument) -> None:
    for name, value in {"optimizer": "adam", "clip_always": True, "warm_up": 1, "decay": "cosine"}.items():
        assert name not in json.loads(study.canonical(document))["training"], "as documents had it before"
        other = replace(document, training=replace(document.training, **{name: value}))
        assert study.read(study.canonical(other)) == other
        assert study.digest(other) != study.digest(document)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer": "adam", "momentum": 0.5}, "momentum of its own"),
        ({"warm_up": 2}, "leave some of the 2 rounds"),
        ({"warm_up": 1, "learning_rate": 1e-6}, "must not fall below"),
    ],
)
def test_training_that_cannot_be_is_refused(document: StudyDocument, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(document, training=replace(document.training, **changes))


def test_equal_documents_have_equal_text_and_digest(document: StudyDocument) -> None:
    turned = replace(document, model=dict(reversed(document.model.items())))
    assert study.canonical(turned) == study.canonical(document)
    assert study.digest(turned) == study.digest(document)


def test_a_float_and_an_equal_whole_number_are_one_document(document: StudyDocument) -> None:
    """YAML and JSON write 8.0 as 8; the approval must not hang on that."""
    whole = replace(document, privacy=PrivacyTerms(8, 1e-4, 0.5))
    assert study.digest(whole) == study.digest(document)


@pytest.mark.parametrize("part", ["", "training", "privacy", "evaluation", "method", "wire"])
def test_a_field_that_nobody_agreed_on_is_refused_by_name(document: StudyDocument, part: str) -> None:
    values: dict[str, Any] = json.loads(study.canonical(document))
    (values[part] if part else values)["hook"] = "x"
    with pytest.raises(BadDocument, match="hook"):
        study.read(json.dumps(values))


def test_every_missing_field_is_told_at_once(document: StudyDocument) -> None:
    values: dict[str, Any] = json.loads(study.canonical(document))
    for name in values:
        with pytest.raises(BadDocument, match=name):
            study.read(json.dumps({key: value for key, value in values.items() if key != name}))
    with pytest.raises(BadDocument) as caught:
        study.read("{}")
    assert all(name in str(caught.value) for name in values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "../x"),
        ("name", ""),
        ("name", "a" * 121),
        ("task_version", 0),
        ("contract", "ab"),
        ("rounds", 0),
        ("rounds", "2"),
        ("rounds", 2.5),
        ("model", {"weights": ["a"]}),
        ("training.steps", 0),
        ("training.learning_rate", 0),
        ("training.learning_rate", float("nan")),
        ("training.momentum", 1),
        ("training.weight_decay", -1),
        ("training.sample_rate", 0),
        ("training.sample_rate", 1.01),
        ("training.images_per_patient", 0),
        ("privacy.epsilon", 0),
        ("privacy.epsilon", float("inf")),
        ("privacy.delta", 0),
        ("privacy.delta", 1),
        ("privacy.clip_norm", 0),
        ("asked", 0),
        ("training.final_rate", 0),
        ("training.final_rate", 1.01),
        ("training.final_noise", 0.09),
        ("training.final_noise", 10.1),
        ("method.proximal", -1),
        ("method.stays", "everything"),
        ("method.personal", 0),
        ("method.towards_mean", 0),
        ("method.head_steps", -1),
        ("wire.up", "int4"),
        ("wire.down", "float64"),
        ("evaluation.releases", 0),
        ("evaluation.bins", 1),
        ("evaluation.bins", 65537),
        ("evaluation.epsilon", -1),
        ("evaluation.paired", 65),
        ("evaluation.paired", -1),
        ("evaluation.matrix", -1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(document: StudyDocument, path: str, value: object) -> None:
    values: dict[str, Any] = json.loads(study.canonical(document))
    *parts, name = path.split(".")
    target = values
    for part in parts:
        target = target[part]
    target[name] = value
    with pytest.raises(BadDocument, match=path.replace(".", r"\.")):
        study.read(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"asked": 3}, "3 of 2 rounds"),
        ({"method": {"proximal": 0.1, "personal": 0.1}}, "at most one of proximal"),
        ({"method": {"towards_mean": 0.1, "personal": 0.1}}, "at most one of proximal"),
        ({"method": {"control_variates": True, "stays": "head"}}, "at most one of proximal"),
        ({"method": {"head_steps": 1}}, "a head that stays"),
        ({"method": {"stays": "head", "head_steps": 3}}, "leave some of the 3 steps"),
    ],
)
def test_what_does_not_go_together_is_refused(document: StudyDocument, changes: dict[str, Any], told: str) -> None:
    values: dict[str, Any] = json.loads(study.canonical(document))
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    with pytest.raises(BadDocument, match=told):
        study.read(json.dumps(values))


def test_the_noise_changes_geometrically_in_five_steps_at_most(document: StudyDocument) -> None:
    terms = replace(document.training, final_noise=0.25)
    assert [terms.noise_in(turn, 3) for turn in (1, 2, 3)] == pytest.approx([1.0, 0.5, 0.25])
    assert terms.noise_in(1, 1) == 1.0
    factors = [terms.noise_in(turn, 20) for turn in range(1, 21)]
    assert sorted(set(factors), reverse=True) == pytest.approx([0.25 ** (k / 4) for k in range(5)])
    assert factors == sorted(factors, reverse=True)
    assert {document.training.noise_in(turn, 20) for turn in range(1, 21)} == {1.0}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.integers(1, 12), data=st.data())
def test_a_hospitals_last_turn_is_the_last_round_whatever_it_has_missed(
    document: StudyDocument, rounds: int, data: st.DataObject
) -> None:
    asked = data.draw(st.integers(1, rounds))
    document = replace(document, rounds=rounds, asked=asked)
    heard = sorted(data.draw(st.sets(st.integers(1, rounds), max_size=asked)))
    turns = [document.turn(round, others) for others, round in enumerate(heard)]
    assert turns == sorted(set(turns))
    assert all(1 <= turn <= asked for turn in turns)
    assert document.turn(rounds, 0) == asked
    assert document.turn(1, asked) > asked, "no turn is left"
    if asked == rounds:
        assert all(document.turn(round, round - 1) == round for round in range(1, rounds + 1))


def test_a_personal_model_takes_steps_of_its_own(document: StudyDocument) -> None:
    assert document.steps_a_round() == 3
    assert replace(document, method=study.MethodTerms(personal=1.0)).steps_a_round() == 6


def test_the_rate_falls_geometrically_to_its_last_fraction(document: StudyDocument) -> None:
    terms = replace(document.training, learning_rate=8.0, final_rate=0.25)
    assert [terms.rate_in(round, 3) for round in (1, 2, 3)] == pytest.approx([8.0, 4.0, 2.0])
    assert terms.rate_in(1, 1) == 8.0
    assert document.training.rate_in(2, 3) == document.training.learning_rate


def test_other_models_histograms_are_counted_before_the_first_leaves(document: StudyDocument) -> None:
    terms = replace(document.evaluation, subgroups=["sex"], paired=4, matrix=3)
    assert document.evaluation.all_histograms() == 2
    assert terms.all_histograms() == 2 + 1 + 1 + 3
    assert [terms.histograms(last) for last in (False, True)] == [1, 2]


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "[" * 100_000])
def test_a_text_that_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(BadDocument):
        study.read(text)


@MANY
@given(data=st.data())
def test_a_spoilt_document_is_a_document_or_is_refused_in_words(document: StudyDocument, data: st.DataObject) -> None:
    whole = study.canonical(replace(document, sizes={"ash": 90, "elm": 7}))
    if data.draw(st.booleans()):
        text = data.draw(spoiling.json_of(json.loads(whole)))
    else:
        text = data.draw(spoiling.bytes_of(whole.encode())).decode("utf-8", "replace")
    try:
        found = study.read(text)
    except BadDocument:
        return
    assert study.read(study.canonical(found)) == found
    assert 1e-6 <= found.privacy.clip_norm <= 1e6
    assert all(1 <= size <= 10_000_000 for size in found.sizes.values())


@given(rate=st.floats(1e-6, 1e6), final=st.floats(1e-6, 1.0), rounds=st.integers(1, 200))
def test_a_falling_rate_stays_within_the_bounds_of_a_rate(rate: float, final: float, rounds: int) -> None:
    """Else an order of a late round could be answered by nobody, and would be charged all the same."""
    try:
        terms = TrainingTerms(1, rate, 0.0, 0.0, 0.5, 1, final)
    except ValueError:
        assert rate * final < 1e-6
        return
    for round in {1, (rounds + 1) // 2, rounds}:
        assert replace(terms, learning_rate=terms.rate_in(round, rounds)).learning_rate >= 1e-6


def test_documents_of_yes_or_no_questions_keep_their_digest(document: StudyDocument) -> None:
    """This one was approved before there were other answers."""
    kept = replace(
        document,
        name="kept-1",
        release="1.0.0",
        contract="0" * 64,
        model={"name": "scatter_linear", "resolution": 16},
        evaluation=EvaluationTerms(2, 16, 4.0, findings=["effusion"]),
        sizes={"a": 10},
    )
    assert study.digest(kept) == "627f8ed6ac1d9cd8a97fd3dae72bbf2226cb0d0df6195812f6619855d5a32849"


ANSWERS = {"question": AnswerTerms("classes", [3, 3]), "size": AnswerTerms("measure", [3, 8])}


def test_other_answers_and_public_weights_are_part_of_what_is_approved(document: StudyDocument) -> None:
    terms = replace(document.evaluation, answers=ANSWERS)
    asked = replace(document, evaluation=terms)
    weighted = replace(document, training=replace(document.training, class_weights=[0.5, 1.0]))
    assert len({study.digest(one) for one in (document, asked, weighted)}) == 3
    for one in (asked, weighted):
        assert study.read(study.canonical(one)) == one
    assert terms.histograms(last=True) - document.evaluation.histograms(last=True) == (1 + 3) + 3
    assert AnswerTerms("grade", [5, 5]).histograms == 1


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("classes", [2, 2]), ("classes", [3, 4]), ("classes", [21, 21]), ("grade", [3]), ("measure", [2, 8]),
        ("measure", [3, 1]), ("binary", [2, 2]),
    ],
)  # fmt: skip
def test_a_table_that_no_question_has_is_refused(document: StudyDocument, kind: str, cells: list[int]) -> None:
    values: dict[str, Any] = json.loads(study.canonical(document))
    values["evaluation"]["answers"] = {"question": {"kind": kind, "cells": cells}}
    with pytest.raises(BadDocument, match=r"evaluation\.answers\.question"):
        study.read(json.dumps(values))
    values["evaluation"]["answers"] = {}
    values["training"]["class_weights"] = [1.5]
    with pytest.raises(BadDocument, match=r"training\.class_weights"):
        study.read(json.dumps(values))
