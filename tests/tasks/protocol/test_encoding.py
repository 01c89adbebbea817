"""Fewer bytes for the same tensors: how far off they may be, what they weigh, and what a liar may not send."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.protocol import encoding
from tasks.protocol.study import Encoding
from tasks.protocol.wire import Arrays, WireError

FORMS: tuple[Encoding, ...] = ("float16", "int8")
numbers = st.floats(-1e6, 1e6, width=32)
tensors = st.dictionaries(
    st.sampled_from(["a.weight", "b.bias", "c", "d"]),
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, max_side=40), elements=numbers),
    min_size=1,
)
forms = st.sampled_from(FORMS)


def noise(count: int, seed: int = 0) -> Arrays:
    return {"w": np.random.default_rng(seed).normal(size=count).astype(np.float32)}


@settings(deadline=None)
@given(tensors, forms, st.integers(0, 9))
@example({"c": np.zeros(3, np.float32)}, "int8", 0)
@example({"c": np.full(1, 1e-40, np.float32)}, "int8", 0)
@example({"c": np.zeros(0, np.float32), "d": np.ones((), np.float32)}, "float16", 0)
def test_what_arrives_is_as_near_as_the_form_says(arrays: Arrays, form: Encoding, seed: int) -> None:
    generator = np.random.default_rng(seed)
    largest = max((float(np.abs(value).max()) for value in arrays.values() if value.size), default=0.0)
    for uniform, off in ((encoding.nearest, 0.5 / 127), (encoding.stochastic(generator), 1 / 127)):
        coded = encoding.shrink(arrays, form, uniform)
        arrived = encoding.restore(coded, form, arrays)
        assert encoding.form_of(coded) == form
        assert arrived.keys() == arrays.keys()
        for name, value in arrays.items():
            assert (arrived[name].shape, arrived[name].dtype) == (value.shape, np.float32)
            tolerance = off * largest if form == "int8" else np.abs(value) / 2047 + 4e-8 * largest
            assert (np.abs(arrived[name] - value) <= tolerance * 1.001 + 1e-38).all()
            gone = encoding.lost(arrays, coded, form)[name]
            np.testing.assert_array_equal(gone, value - arrived[name])
        sent = sum(value.nbytes for value in coded.values())
        assert sent <= encoding.largest_size(form, sum(value.size for value in arrays.values()))


def test_the_largest_value_keeps_its_sign_whatever_the_draw() -> None:
    ones = {"w": np.ones(5, np.float32)}
    just_below_one = np.nextafter(np.float32(1), np.float32(0))
    coded = encoding.shrink(ones, "int8", lambda count: np.full(count, just_below_one, np.float32))
    np.testing.assert_array_equal(encoding.restore(coded, "int8", ones)["w"], ones["w"])


def test_float32_is_left_alone() -> None:
    arrays = noise(5)
    assert encoding.shrink(arrays, "float32") is arrays
    assert encoding.restore(arrays, "float32", {}) is arrays
    assert encoding.form_of(arrays) == "float32"
    assert encoding.norm_of(arrays) == pytest.approx(np.linalg.norm(arrays["w"]))


def test_noise_takes_less_than_a_quarter() -> None:
    """An update under privacy is noise nearly throughout: 8 bits are 7.2 once large codes are rare."""
    arrays = noise(300_000)
    sent = {form: sum(value.nbytes for value in encoding.shrink(arrays, form).values()) for form in FORMS}
    assert sent["int8"] < 0.24 * arrays["w"].nbytes
    assert sent["float16"] < 0.51 * arrays["w"].nbytes


def test_stochastic_rounding_is_right_on_average_where_the_nearest_is_not() -> None:
    arrays = {"w": np.array([1.0, 0.3 / 127], np.float32)}
    generator = np.random.default_rng(1)
    arrived = [
        encoding.restore(encoding.shrink(arrays, "int8", encoding.stochastic(generator)), "int8", arrays)
        for _ in range(2000)
    ]
    small = np.array([each["w"][1] for each in arrived])
    assert set(np.round(small * 127, 3)) == {0.0, 1.0}
    assert small.mean() * 127 == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / 2000))
    assert encoding.restore(encoding.shrink(arrays, "int8"), "int8", arrays)["w"][1] == 0


@pytest.mark.parametrize("form", FORMS)
def test_with_error_feedback_the_sum_of_what_arrives_stays_near_the_sum_of_what_was_meant(form: Encoding) -> None:
    meant, arrived, residual = np.zeros(3000), np.zeros(3000), {"w": np.zeros(3000, np.float32)}
    for round in range(50):
        update = noise(3000, round)
        meant += update["w"]
        whole = {"w": update["w"] + residual["w"]}
        coded = encoding.shrink(whole, form)
        residual = encoding.lost(whole, coded, form)
        arrived += encoding.restore(coded, form, whole)["w"]
    np.testing.assert_allclose(meant - arrived, residual["w"], atol=1e-3)  # only the last rounding is missing
    assert np.abs(meant - arrived).max() < 5 / 127


@pytest.mark.parametrize("form", FORMS)
def test_the_norm_is_that_of_what_arrives(form: Encoding) -> None:
    arrays = noise(5000)
    coded = encoding.shrink(arrays, form)
    assert encoding.norm_of(coded) == pytest.approx(
        np.linalg.norm(encoding.restore(coded, form, arrays)["w"]), rel=1e-6
    )


def test_every_machine_restores_the_same_bits() -> None:
    """The digest of a model that arrived as a change must agree; a product of two float32 has one right answer."""
    coded = encoding.shrink(noise(2048), "int8")
    arrived = encoding.restore(coded, "int8", noise(2048))["w"]
    codes = encoding._unpacked(coded["int8.codes"], 2048)
    one = np.float32(int(codes[7])) * (coded["int8.scales"][0] / np.float32(127))
    assert arrived[7].tobytes() == one.tobytes()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda coded: {}, "encoding int8, not none"),
        (lambda coded: {"w": np.ones(2048, np.float32)}, "encoding int8, not w"),
        (lambda coded: coded | {"hook": np.zeros(1)}, "expected tensors in the encoding int8"),
        (lambda coded: coded | {"int8.codes": coded["int8.codes"].astype(np.float32)}, "codes are float32"),
        (lambda coded: coded | {"int8.codes": coded["int8.codes"][:-9]}, "8-bit codes"),
        (lambda coded: coded | {"int8.codes": np.zeros(9, np.uint8)}, "cannot be unpacked"),
        (
            lambda coded: coded | {"int8.codes": encoding._huffman(np.zeros(2047, np.int8))},
            "for a number of values other than",
        ),
        (
            lambda coded: coded | {"int8.codes": encoding._huffman(np.zeros(10**7, np.int8))},
            "for a number of values other than",
        ),
        (lambda coded: coded | {"int8.scales": np.ones(3, np.float32)}, "scales for 2048"),
        (lambda coded: coded | {"int8.scales": np.ones(2)}, "scales float64"),
    ],
)
def test_codes_that_do_not_fit_are_refused(spoil: object, told: str) -> None:
    coded = spoil(encoding.shrink(noise(2048), "int8"))  # type: ignore[operator]
    with pytest.raises(WireError, match=told):
        encoding.restore(coded, "int8", noise(2048))


def test_half_precision_that_does_not_fit_is_refused() -> None:
    coded = encoding.shrink(noise(2048), "float16")
    with pytest.raises(WireError, match="2047 codes for 2048 values"):
        encoding.restore(coded | {"float16.codes": coded["float16.codes"][1:]}, "float16", noise(2048))


def test_a_scale_that_is_no_number_is_left_for_the_admission_to_see() -> None:
    coded = encoding.shrink(noise(2048), "int8")
    coded["int8.scales"][1] = np.nan
    assert not np.isfinite(encoding.restore(coded, "int8", noise(2048))["w"]).all()
