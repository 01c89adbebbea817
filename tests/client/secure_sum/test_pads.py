"""One message is uniform, the sum is exact, and whoever is shown something else makes garbage."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from client.errors import PeersRefused
from client.secure_sum.pads import Pads
from client.training.noise import entropy, noised
from tasks.protocol import enrolment, sum_key
from tasks.protocol.secure_sum import Grid, decode, encode, grid, share
from tasks.protocol.sum_key import SumKey

STUDY, ORDER = "ab" * 32, "cd" * 32
CHANCE = 1e-7
"""Keys are random each time: a fair test may fail so often."""
NAMES = ("alder", "birch", "cedar", "dogwood")
SECRETS = {name: X25519PrivateKey.generate() for name in NAMES}
DEPUTY = sum_key.read_deputy(sum_key.new_deputy(enrolment.new_key()))
KEYS = {name: sum_key.signed(DEPUTY, name, STUDY, secret.public_key()) for name, secret in SECRETS.items()}


def _masked(
    name: str, values: np.ndarray, common: Grid, roster: list[SumKey] | None = None, order: str = ORDER
) -> np.ndarray:
    pads = Pads(SECRETS[name], name, roster or list(KEYS.values()), order, "train")
    return np.asarray(pads.mask(encode(values, common), common))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3000), st.sampled_from([32, 64]), st.integers(2, 4))
def test_pads_cancel_in_the_sum_of_everybody(count: int, bits: int, hospitals: int) -> None:
    common, names = Grid(0.25, bits), NAMES[:hospitals]
    roster = [KEYS[name] for name in names]
    parts = {name: np.arange(count, dtype=float) * (number + 1) for number, name in enumerate(names)}
    total = np.zeros(count, common.dtype)
    for name, part in parts.items():
        total += _masked(name, part, common, roster)
    assert np.array_equal(decode(total, common), sum(parts.values()))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("missing", NAMES)
def test_the_sum_of_all_but_one_is_uniform(bits: int, missing: str) -> None:
    """Exact parts, all zero: whatever is seen are pads. A tenth of a word's range holds a tenth of the words."""
    common = Grid(1.0, bits)
    total = np.zeros(40_000, common.dtype)
    for name in set(NAMES) - {missing}:
        total += _masked(name, np.zeros(len(total)), common)
    assert kstest(total.astype(np.float64) / 2.0**bits, "uniform").pvalue > CHANCE
    assert abs(np.corrcoef(total[:-1].astype(float), total[1:].astype(float))[0, 1]) < 0.03


def test_one_message_is_uniform_whatever_it_says() -> None:
    common = Grid(2.0**-10, 32)
    for values in (np.zeros(40_000), np.full(40_000, 1e5), np.arange(40_000.0)):
        words = _masked("alder", values, common)
        assert kstest(words / 2.0**32, "uniform").pvalue > CHANCE


def test_a_colluding_peer_takes_its_own_pads_off_and_no_others() -> None:
    """With two honest hospitals left, whatever the colluders know, the rest is uniform."""
    common, count = Grid(1.0, 32), 40_000
    alder = _masked("alder", np.full(count, 7.0), common)
    for colluder in ("cedar", "dogwood"):
        roster = [KEYS["alder"], KEYS[colluder]]
        pad = Pads(SECRETS[colluder], colluder, list(KEYS.values()), ORDER, "train")
        mine = {"alder": pad._keys["alder"]}
        pad._keys = mine
        alder = alder + pad.mask(np.zeros(count, np.uint32), common)
        assert roster
    assert kstest(alder / 2.0**32, "uniform").pvalue > CHANCE
    birch = Pads(SECRETS["birch"], "birch", list(KEYS.values()), ORDER, "train")
    birch._keys = {"alder": birch._keys["alder"]}
    opened = alder + birch.mask(np.zeros(count, np.uint32), common)
    assert np.array_equal(decode(opened, common), np.full(count, 7.0)), "the test would see an opened part"


@pytest.mark.parametrize("shown", ["another roster", "another order", "another cohort"])
def test_whoever_is_shown_something_else_makes_garbage(shown: str) -> None:
    common, count = Grid(1.0, 32), 5_000
    total = np.zeros(count, np.uint32)
    for name in NAMES:
        roster, order, cohort = list(KEYS.values()), ORDER, "train"
        if name == "cedar":
            roster = roster[:3] if shown == "another roster" else roster
            order = "ef" * 32 if shown == "another order" else order
            cohort = "validation" if shown == "another cohort" else cohort
        pads = Pads(SECRETS[name], name, roster, order, cohort)
        total += pads.mask(encode(np.ones(count), common), common)
    assert np.abs(decode(total, common)).mean() > 2**28


def test_a_pad_is_taken_once() -> None:
    """The wrong version masks a second message under the same pads, and their difference shows."""
    common, pads = Grid(1.0, 32), Pads(SECRETS["alder"], "alder", list(KEYS.values()), ORDER, "train")
    first = pads.mask(np.zeros(100, np.uint32), common)
    assert not np.array_equal(pads.mask(np.zeros(100, np.uint32), common), first)


def test_a_key_whose_secret_everybody_knows_is_refused() -> None:
    zero = SumKey("birch", sum_key.encoded(bytes(32)), "AA==", "AA==", "AA==", "AA==")
    with pytest.raises(PeersRefused, match="birch makes no secret"):
        Pads(SECRETS["alder"], "alder", [KEYS["alder"], zero], ORDER, "train")


@pytest.mark.parametrize("leaves_out", [0, 1, 2])
def test_the_noise_of_the_sum_is_what_is_claimed_over_hundreds_of_steps(leaves_out: int) -> None:
    """Real messages, production noise: 300 steps of 50 values. One hospital in four may leave its noise out (it was
    allowed to collude); a second one is seen."""
    import torch

    noise, clip, steps, count = 2.0, 0.25, 300, 50
    common = grid(noise, clip, hospitals=4, colluding=1, patients=100)
    own, seen = share(noise, 4, 1) * clip, []
    for step in range(steps):
        total = np.zeros(count, common.dtype)
        for number, name in enumerate(NAMES):
            silent = number < leaves_out
            part = torch.zeros(count, dtype=torch.float64)
            part = part if silent else noised(part, own, entropy())
            total += _masked(name, part.numpy(), common, order=f"{step:064d}")
        seen.append(decode(total, common))
    values = np.concatenate(seen)
    expected, error = own * np.sqrt(4 - leaves_out), 1 / np.sqrt(2 * len(values))
    assert abs(values.std() / expected - 1) < 5 * error
    assert kstest(values / expected, "norm").pvalue > CHANCE
    promised = noise * clip
    assert (values.std() > promised * (1 - 5 * error)) == (leaves_out <= 1), "a second silent hospital is seen"
