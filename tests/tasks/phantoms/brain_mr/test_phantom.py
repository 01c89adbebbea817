"""Phantom brain MR: contrasts of tissue as the sequences have them, noise, signs of the grade, scanners that differ."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.brain_mr.sequences import SEQUENCES
from tasks.phantoms.brain_mr.head import AT, SHAPE, TISSUES, head_of, regions, tumour_of
from tasks.phantoms.brain_mr.scanner import acquired, scanner_of, shaded, signal
from tasks.task import PhantomHospital

ONE_VOXEL_EACH = np.eye(len(TISSUES), dtype=np.float32)[:, :, None, None]


@pytest.mark.parametrize("name", [f"site{n}" for n in range(6)])
def test_tissues_look_as_they_do_on_each_sequence(name: str) -> None:
    scanner = scanner_of(PhantomHospital(name, 1))
    found = {
        p.name: dict(zip(TISSUES, signal(scanner, p, ONE_VOXEL_EACH)[:, 0, 0], strict=True)) for p in scanner.protocols
    }
    t1, t1ce, t2, flair = (found[sequence] for sequence in ("T1", "T1ce", "T2", "FLAIR"))
    assert t1["scalp"] > t1["white"] > t1["grey"] > t1["csf"] > t1["bone"], "fat bright, fluid dark"
    assert t2["csf"] > t2["grey"] > t2["white"], "fluid bright"
    assert t2["oedema"] > t2["grey"]
    assert flair["csf"] < 0.35 * flair["white"], "fluid is nulled"
    assert flair["oedema"] > flair["grey"]
    assert t1ce["enhancing"] > t1ce["white"], "the agent shortens T1 where it leaks"
    assert t1["enhancing"] < t1["white"]
    assert t1ce["necrosis"] < t1ce["white"]


def test_shares_add_up_and_regions_are_nested() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        tumour = tumour_of(rng, bool(seed % 2))
        shares = head_of(rng, tumour)
        assert shares.shape == (len(TISSUES), *SHAPE)
        assert shares.min() >= 0
        total = shares.sum(axis=0)
        assert total.max() < 1.01
        whole, core, enhancing = regions(shares)
        assert whole.sum() > core.sum() >= enhancing.sum()
        assert (whole >= core).all()
        assert (core >= enhancing).all()
        assert core.sum() > 50, "a tumour can be seen"
        brain = shares[AT["white"]] + shares[AT["grey"]]
        assert brain.sum() > 20 * core.sum()


def test_high_grade_enhances_more_often_and_not_always() -> None:
    rims = {grade: [tumour_of(np.random.default_rng(n), grade).rim > 0 for n in range(300)] for grade in (False, True)}
    assert np.mean(rims[False]) < 0.35
    assert 0.75 < np.mean(rims[True]) < 1


def test_noise_is_rician_and_gain_is_the_receivers() -> None:
    scanner = scanner_of(PhantomHospital("alder", 1))
    air = acquired(scanner, np.zeros((10, 64, 64), dtype=np.float32), 2, np.random.default_rng(0)).astype(float)
    assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03), "Rayleigh where nothing is"
    louder = scanner_of(PhantomHospital("alder", 1, gain=2.0))
    assert louder.gain == pytest.approx(2 * scanner.gain)


def test_the_coils_shade_slowly() -> None:
    scanner = scanner_of(PhantomHospital("alder", 1))
    field = shaded(scanner, np.ones(SHAPE, dtype=np.float32), np.random.default_rng(0))
    assert 0.02 < np.log(field).std() < 0.4
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 0.06


def test_hospitals_differ_and_some_never_run_a_sequence() -> None:
    scanners = [scanner_of(PhantomHospital(f"site{n}", 1)) for n in range(60)]
    assert {scanner.field_t for scanner in scanners} == {1.5, 3.0}
    assert any(1.0 in scanner.missed.values() for scanner in scanners)
    assert any(not any(scanner.missed.values()) for scanner in scanners)
    assert all("T1ce" not in scanner.missed for scanner in scanners), "without it nobody could take part"
    assert any(scanner.protocols[0].sagittal for scanner in scanners)
    for scanner in scanners:
        for protocol in scanner.protocols:
            found = next(sequence.name for sequence in SEQUENCES if sequence.finds(protocol.described))
            assert found == protocol.name
