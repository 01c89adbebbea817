"""Near-duplicates: found across patients and only there, with work that does not explode."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from client.cohort.near_duplicates import confirm, fingerprint, nominate
from client.cohort.picture import plane_of
from tasks.phantoms.fields import smooth_noise


def _image(seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    grey = 0.5 + 0.15 * smooth_noise(rng, (128, 128), (16, 16)) + rng.normal(0, 0.02, (128, 128))
    return grey.clip(0, 1).astype(np.float32)[None]


def _encoded_again(image: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    stream = io.BytesIO()
    Image.fromarray((image[0] * 255).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)).astype(np.float32)[None] / np.float32(255)


def test_a_copy_is_found_under_another_patient_only() -> None:
    images = [_image(seed) for seed in range(40)]
    images += [images[3], _encoded_again(images[7], 80), images[9]]
    patients = [f"p{number}" for number in range(40)] + ["other", "third", "p9"]
    candidates = nominate([fingerprint(image) for image in images], patients, 1000)
    assert confirm(candidates, lambda position: images[position]) == [(3, 40), (7, 41)]


def test_a_copy_of_a_volume_is_found_by_its_middle_and_confirmed_by_all_of_it() -> None:
    def volume(seed: int) -> NDArray[np.float32]:
        return np.stack([_image(10 * seed + place)[0] for place in range(5)])[None]

    volumes = [volume(seed) for seed in range(4)]
    same_middle = volumes[2].copy()
    same_middle[0, [0, 1, 3, 4]] = volumes[3][0, [0, 1, 3, 4]]
    volumes += [volumes[1], same_middle]
    assert fingerprint(volumes[0]) == fingerprint(volumes[0][:, 2])
    assert plane_of(volumes[0]).shape == (128, 128)
    candidates = nominate([fingerprint(one) for one in volumes], [f"p{n}" for n in range(6)], 1000)
    assert set(candidates) == {(1, 4), (2, 5)}
    assert confirm(candidates, lambda position: volumes[position]) == [(1, 4)]


def test_what_only_resembles_is_not_confirmed() -> None:
    one = _image(1)
    other = one.copy()
    other[:, 40:90, 40:90] = _image(2)[:, 40:90, 40:90]
    assert confirm([(0, 1)], lambda position: (one, other)[position]) == []
    assert confirm([(0, 1)], lambda position: np.zeros((1, 8, 8), np.float32)) == [], "flat images say nothing"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 3)), max_size=30), st.data())
def test_no_close_pair_of_different_patients_is_missed(images: list[tuple[int, int]], data: st.DataObject) -> None:
    """Against all pairs, with some hashes made close on purpose."""
    for _ in range(data.draw(st.integers(0, 5))) if images else ():
        source, owner = data.draw(st.sampled_from(images))
        flips = data.draw(st.lists(st.integers(0, 63), max_size=4))
        images = [*images, (source ^ sum(1 << bit for bit in set(flips)), (owner + 1) % 4)]
    hashes, owners = [h for h, _ in images], [str(p) for _, p in images]
    expected = [
        (a, b)
        for a in range(len(images))
        for b in range(a + 1, len(images))
        if (hashes[a] ^ hashes[b]).bit_count() <= 3 and owners[a] != owners[b]
    ]
    assert nominate(hashes, owners, 10_000) == expected


@pytest.mark.parametrize("most", [1, 7, 100])
def test_it_stops_when_everything_looks_the_same(most: int) -> None:
    assert len(nominate([0] * 3000, [str(number) for number in range(3000)], most)) == most


def test_a_fingerprint_has_64_bits_whatever_the_shape() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 28, 28), (3, 128, 96), (1, 5, 7)):
        assert 0 <= fingerprint(rng.random(shape, dtype=np.float32)) < 1 << 64
    rising = np.tile(np.linspace(0, 1, 90, dtype=np.float32), (1, 80, 1))
    assert fingerprint(rising) == 2**64 - 1
    assert fingerprint(1 - rising) == 0
