"""Claims that are renewed: what is ours stays ours, what is not is told once, and silence is no answer."""

from __future__ import annotations

from typing import cast

from server.deployment import leases
from server.deployment.leases import Leases
from server.runtime.flower_private import RunAcquirer
from tests.server.deployment.superlink import Acquirer, SuperLink


def test_a_claim_that_has_lapsed_is_told_once() -> None:
    superlink = SuperLink()
    superlink.start("a")
    superlink.start("b")
    acquirer = Acquirer(superlink)
    kept = Leases(cast(RunAcquirer, acquirer))
    for run, token in (acquirer.next(), acquirer.next()):  # type: ignore[misc]
        kept.keep(run, token)
    kept.renew_all()
    assert kept.lapsed() == set()
    acquirer.lapse(1000)
    superlink.away = True
    kept.renew_all()
    assert kept.lapsed() == set(), "it cannot be known now"
    superlink.away = False
    kept.renew_all()
    kept.renew_all()
    assert kept.lapsed() == {1000}
    assert kept.lapsed() == set()
    acquirer.lapse(1001)
    kept.drop(1001)
    kept.renew_all()
    assert kept.lapsed() == set(), "whoever lets go is not told"


def test_claims_are_renewed_well_before_they_end() -> None:
    from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL

    assert 3 * leases.EVERY_S < HEARTBEAT_DEFAULT_INTERVAL
