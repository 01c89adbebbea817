"""What outputs and labels mean in each kind of question, by hand, and every declaration that is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import Answer, Binary, Classes, Grade, Measure, NoSuchAnswer
from tasks.codes import Code

CODES = tuple(Code("99CONSILIUM", name.upper(), name) for name in ("normal", "benign", "malignant"))
LESION = Classes(("normal", "benign", "malignant"), ("malignant",), CODES)
ARTHROSIS = Grade(
    ("none", "doubtful", "mild", "severe"), "mild", tuple(Code("99CONSILIUM", f"G{n}", f"grade {n}") for n in range(4))
)
SIZE = Measure(
    Code("SCT", "410668003", "Length"),
    Code("UCUM", "mm", "millimeter"),
    low=0.0,
    high=50.0,
    event_above=20.0,
    units=(("cm", 10.0), ("m", 1000.0)),
)
EJECTION = Measure(Code("SCT", "250908004", "LVEF"), Code("UCUM", "%", "percent"), 10.0, 80.0, event_below=40.0)
KINDS: tuple[Answer, ...] = (Binary(), LESION, ARTHROSIS, SIZE, EJECTION)


def told(answer: Answer, *outputs: float) -> np.ndarray:
    return answer.told(torch.tensor([outputs])).double().numpy()


def test_probabilities_of_classes_are_the_softmax() -> None:
    p = told(LESION, 0.0, math.log(2.0), math.log(5.0))
    assert p == pytest.approx(np.array([[1, 2, 5]]) / 8)
    assert LESION.answer(p) == [2]
    assert LESION.event_score(p) == pytest.approx([5 / 8])


def test_thresholds_that_contradict_each_other_are_reconciled() -> None:
    logit = np.log(np.array([0.6, 0.2, 0.3]) / (1 - np.array([0.6, 0.2, 0.3])))
    p = told(ARTHROSIS, *logit)
    assert p == pytest.approx(np.array([[0.4, 0.4, 0.0, 0.2]]))
    assert ARTHROSIS.answer(p) == [1], "the median"
    assert ARTHROSIS.event_score(p) == pytest.approx([0.2])


def test_a_value_is_in_sixteenths_of_half_the_range_from_the_middle_and_never_beyond_the_range() -> None:
    assert told(SIZE, 3.2) == pytest.approx(np.array([[30.0]]))
    assert told(SIZE, 17.0)[0, 0] == 50.0
    assert told(SIZE, -17.0)[0, 0] == 0.0
    for value, score in [(0.0, 0.0), (10.0, 0.25), (20.0, 0.5), (35.0, 0.75), (50.0, 1.0)]:
        assert SIZE.event_score(np.array([[value]])) == pytest.approx([score])
    assert EJECTION.event_score(np.array([[10.0], [40.0], [80.0]])) == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize("answer", KINDS)
@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_still_give_an_answer(answer: Answer, spoilt: float) -> None:
    p = answer.told(torch.full((2, answer.outputs), spoilt)).double().numpy()
    assert p.shape == (2, answer.told_numbers)
    assert np.isfinite(p).all()
    assert ((answer.event_score(p) >= 0) & (answer.event_score(p) <= 1)).all()


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.floats(0, 5), st.integers(0, 3))
def test_the_events_score_rises_with_its_logits(logits: list[float], more: float, which: int) -> None:
    for answer in KINDS:
        outputs = torch.tensor([logits[: answer.outputs]], dtype=torch.float64)
        raised = outputs.clone()
        event = {"classes": [2], "grade": [0, 1, 2], "binary": [0], "measure": [0]}[answer.kind]
        up = -more if answer == EJECTION else more
        raised[0, event[which % len(event)]] += up
        before, after = (answer.event_score(answer.told(o).numpy()) for o in (outputs, raised))
        assert after[0] >= before[0] - 1e-12
        if answer.told_numbers > 1:
            assert answer.told(outputs).sum() == pytest.approx(1.0)


def test_truths_of_images_become_a_patients() -> None:
    some, nobody = np.array([1.0, math.nan, 2.0]), np.array([math.nan])
    assert LESION.of_patient(some) == 2
    assert ARTHROSIS.of_patient(some) == 2
    assert SIZE.of_patient(some) == 1.5
    assert Grade(ARTHROSIS.names, "mild", ARTHROSIS.codes, several="lowest").of_patient(some) == 1
    assert Binary().of_patient(np.array([0.0, 1.0])) == 1
    assert all(math.isnan(answer.of_patient(nobody)) for answer in KINDS)


def test_the_event_of_a_truth() -> None:
    nan = math.nan
    assert np.array_equal(LESION.event_of(np.array([0, 1, 2, nan])), [0, 0, 1, nan], equal_nan=True)
    assert np.array_equal(ARTHROSIS.event_of(np.array([1, 2, 3, nan])), [0, 1, 1, nan], equal_nan=True)
    assert np.array_equal(SIZE.event_of(np.array([20.0, 20.1, nan])), [0, 1, nan], equal_nan=True)
    assert np.array_equal(EJECTION.event_of(np.array([40.0, 39.9, nan])), [0, 1, nan], equal_nan=True)


@pytest.mark.parametrize(
    ("answer", "text", "truth"),
    [
        (Binary(), "1.0", 1.0),
        (LESION, " Malignant ", 2.0),
        (ARTHROSIS, "2", 2.0),
        (ARTHROSIS, "mild", 2.0),
        (Grade(ARTHROSIS.names, "mild", ARTHROSIS.codes, first=1), "1", 0.0),
        (SIZE, "12", 12.0),
        (SIZE, "12 mm", 12.0),
        (SIZE, "1.2cm", 12.0),
        (SIZE, "0.012 m", 12.0),
        (EJECTION, "55 %", 55.0),
    ],
)
def test_what_a_cell_says(answer: Answer, text: str, truth: float) -> None:
    assert answer.read(text) == truth


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        *[(answer, text) for answer in KINDS for text in ("", "nan", "inf", "1_0", "x", "9e9")],
        (Binary(), "2"),
        (LESION, "2"),
        (ARTHROSIS, "1.5"),
        (ARTHROSIS, "4"),
        (SIZE, "1,2 cm"),
        (SIZE, "12 inch"),
        (SIZE, "51"),
        (SIZE, "5.1 cm"),
        (SIZE, "12 MM"),
        (EJECTION, "0.55 1"),
    ],
)
def test_a_cell_that_says_none_of_it_is_refused_with_what_there_is(answer: Answer, text: str) -> None:
    with pytest.raises(NoSuchAnswer, match=r"0 or 1|one of|a number in"):
        answer.read(text)


def test_a_unit_may_stand_in_a_cell_of_its_own() -> None:
    assert SIZE.read("1.2", "cm") == SIZE.read("1.2 cm", "cm") == 12.0
    with pytest.raises(NoSuchAnswer, match="mm, cm, m"):
        SIZE.read("1.2 mm", "cm")


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: Classes(("a", "b"), ("b",), CODES[:2]), "use 3 to 20"),
        (lambda: Classes(("a", "b", "b"), ("b",), CODES), "another one"),
        (lambda: Classes(("a", "b", "C"), ("b",), CODES), "lower-case"),
        (lambda: Classes(("a", "b", "c"), ("d",), CODES), "event"),
        (lambda: Classes(("a", "b", "c"), ("a", "b", "c"), CODES), "not all"),
        (lambda: Classes(("a", "b", "c"), ("c",), CODES[:2]), "codes"),
        (lambda: Grade(("a", "b", "c"), "a", CODES), "event"),
        (lambda: Measure(SIZE.code, SIZE.unit, 5.0, 5.0, event_above=5.0), "low"),
        (lambda: Measure(SIZE.code, SIZE.unit, 0.0, 5.0), "one of them"),
        (lambda: Measure(SIZE.code, SIZE.unit, 0.0, 5.0, event_above=5.0), "between"),
        (lambda: Measure(SIZE.code, SIZE.code, 0.0, 5.0, event_above=3.0), "UCUM"),
        (lambda: Measure(SIZE.code, SIZE.unit, 0.0, 5.0, event_above=3.0, units=(("cm", 0.0),)), "factor"),
    ],
)
def test_a_declaration_that_is_no_question_is_refused(declare, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=said):
        declare()
