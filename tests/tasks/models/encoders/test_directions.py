"""Directions: the widest first, half the way to equal spread, and the same whoever computes them."""

from __future__ import annotations

import pytest
import torch

from tasks.models.encoders.directions import fitted

DRAW = torch.Generator().manual_seed(4)
TURN = torch.linalg.qr(torch.randn(6, 6, generator=DRAW))[0]
SPREADS = torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5, 0.25])
FEATURES = (torch.randn(4000, 6, generator=DRAW) * SPREADS) @ TURN.T + 3


def test_along_the_widest_first_and_each_divided_by_the_root_of_its_spread() -> None:
    found = fitted(FEATURES, "drawn")
    standard = (FEATURES - found.mean) / found.spread
    along = (standard @ found.axes).std(dim=0)
    widths = torch.linalg.svdvals(standard - standard.mean(dim=0)) / len(FEATURES) ** 0.5
    torch.testing.assert_close(along, widths.sqrt(), rtol=0.02, atol=1e-3)
    assert (along[:-1] >= along[1:]).all()


def test_vectors_have_norm_one_and_features_a_spread_of_their_own() -> None:
    found = fitted(FEATURES, "drawn")
    for made in (found.along(FEATURES, 3), found.centred(FEATURES)):
        torch.testing.assert_close(made.norm(dim=1), torch.ones(len(FEATURES)), rtol=1e-5, atol=1e-5)
    assert found.along(FEATURES, 3).shape == (4000, 3)


def test_no_sign_is_left_to_chance() -> None:
    assert (fitted(FEATURES, "drawn").axes.sum(dim=0) >= 0).all()


def test_a_feature_that_never_changes_adds_nothing() -> None:
    found = fitted(torch.cat([FEATURES, torch.ones(4000, 1)], dim=1), "drawn")
    assert found.axes.shape == (7, 6)
    torch.testing.assert_close(found.axes[6], torch.zeros(6), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("features", "told"), [(FEATURES[:31], "use 32 or more"), (torch.ones(40, 5), "does not see")])
def test_what_tells_nothing_is_refused(features: torch.Tensor, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        fitted(features, "drawn")
