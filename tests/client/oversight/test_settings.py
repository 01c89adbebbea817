"""A review shows all of a document: whatever differs between two of them can be read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from client.oversight.settings import MEANINGS, every_setting
from tasks.protocol import study as studies
from tasks.protocol.study import AnswerTerms, MethodTerms, SecureSumTerms, StudyDocument
from tests.client.surveying import survey

FLOATS = st.floats(1e-6, 1e6, allow_nan=False)
COUNTS = st.integers(1, 1000)
WORDS = st.text(max_size=12)


@st.composite
def documents(draw: st.DrawFn) -> StudyDocument:
    """Any document, also with names of options that look like something else."""
    options = st.dictionaries(WORDS, WORDS | st.integers(0, 99) | FLOATS | st.booleans(), max_size=3)
    values: dict[str, Any] = {
        "name": draw(st.sampled_from(["a", "b"])),
        "release": draw(WORDS),
        "task": "breast_ultrasound",
        "task_version": 1,
        "contract": "0" * 64,
        "model": {"name": "scatter_linear", **draw(options)},
        "rounds": 1000,
        "asked": draw(COUNTS),
        "training": {
            "steps": draw(COUNTS),
            "learning_rate": draw(st.floats(1e-3, 1e6)),
            "momentum": draw(st.sampled_from([0.0, 0.9])),
            "weight_decay": draw(st.sampled_from([0.0, 0.1])),
            "sample_rate": draw(st.floats(0.01, 1)),
            "images_per_patient": draw(COUNTS),
            "final_rate": draw(st.floats(0.01, 1)),
            "final_noise": draw(st.floats(0.1, 10)),
        },
        "privacy": {"epsilon": draw(st.none() | st.floats(0.1, 10)), "delta": 1e-4, "clip_norm": draw(FLOATS)},
        "evaluation": {"releases": draw(COUNTS), "bins": 16, "epsilon": 1.0, "subgroups": ["sex"]},
        "method": {"proximal": draw(st.sampled_from([0.0, 0.5]))},
        "wire": {"up": draw(st.sampled_from(["float32", "int8"])), "down": "float32"},
        "sizes": draw(st.dictionaries(st.sampled_from(["x", "y", "x.y"]), COUNTS, max_size=3)),
        "asked_by": draw(st.sampled_from(["", "ada", "rosalind"])),
    }
    return studies.read(json.dumps(values))


@given(documents(), documents())
def test_two_documents_with_different_digests_never_read_alike(one: StudyDocument, other: StudyDocument) -> None:
    same = studies.digest(one) == studies.digest(other)
    assert (every_setting(one) == every_setting(other)) == same
    assert ("\n".join(every_setting(one)) == "\n".join(every_setting(other))) == same


def test_a_change_of_any_one_setting_shows(document: StudyDocument) -> None:
    shown = every_setting(document)
    values = json.loads(studies.canonical(document))
    values["privacy"]["clip_norm"] *= 2
    values["training"]["learning_rate"] *= 2
    changed = every_setting(studies.read(json.dumps(values)))
    different = [line.partition(" = ")[0] for line, other in zip(shown, changed, strict=True) if line != other]
    assert different == ["privacy.clip_norm", "training.learning_rate"]


def test_every_setting_has_a_meaning_and_no_meaning_is_of_nothing(document: StudyDocument) -> None:
    """A new field of the document without a sentence for the reader fails here."""
    peers = {name: " ".join([name[:1] * 4] * 8) for name in ("a", "b", "c")}
    sums = SecureSumTerms(False, True, 3, 1, 0, 1, peers)
    evaluation = replace(document.evaluation, paired=0, matrix=0, paired_at=["a"])
    whole = replace(
        document, asked_by="rosalind", evaluation=evaluation, sizes=dict.fromkeys(peers, 9), secure_sum=sums
    )
    names = {line.partition(" = ")[0] for line in every_setting(whole)}
    plain = {name for name in names if not name.startswith(("model.", "sizes.", "secure_sum.peers."))}
    assert plain <= MEANINGS.keys()
    looking = replace(document, evaluation=replace(evaluation, edges="released"))  # which no sum can be
    plain |= {line.partition(" = ")[0] for line in every_setting(looking)}
    plain |= {line.partition(" = ")[0] for line in every_setting(survey())}
    asked = replace(
        document,
        evaluation=replace(evaluation, answers={"question": AnswerTerms("measure", [3, 8])}),
        method=MethodTerms(towards_mean=0.1),
        training=replace(
            document.training,
            class_weights=[0.5, 1.0],
            optimizer="adam",
            clip_always=True,
            warm_up=1,
            decay="cosine",
        ),
    )
    open_to_all = replace(document, privacy=replace(document.privacy, epsilon=None), seed=1)
    plain |= {line.partition(" = ")[0] for line in every_setting(open_to_all)}
    lines = every_setting(asked)
    plain |= {line.partition(" = ")[0] for line in lines}
    (cells,) = (line for line in lines if line.startswith("evaluation.answers.question.cells"))
    assert cells.endswith(MEANINGS["evaluation.answers"])
    assert MEANINGS.keys() - plain <= {"model", "sizes", "secure_sum", "evaluation.answers"}


def test_an_option_cannot_pretend_to_be_another_line() -> None:
    """The wrong version joins names and values as they are."""
    base = {"name": "scatter_linear"}
    honest = {**base, "a": 1, "b": 2}
    forged = {**base, "a = 1: an option of the network\nmodel.b": 2}
    joined = ["\n".join(f"model.{k} = {v}: an option of the network" for k, v in m.items()) for m in (honest, forged)]
    assert joined[0] == joined[1], "what the names would say if they were not quoted"
