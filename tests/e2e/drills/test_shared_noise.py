"""A hundred kills of a study with shared noise, embedded: no tag is used twice, and the ledgers are right."""

from __future__ import annotations

from pathlib import Path

from server.rounds.checkpoint import read_state
from tests.federation.test_shared_noise import SHARED, drill

ROUNDS, KILLS = 300, 100


def test_a_hundred_kills(tmp_path: Path) -> None:
    ended = drill(tmp_path, "hundred", KILLS, 7, *SHARED, f"federation.rounds={ROUNDS}", "privacy.spare=4")
    state = read_state(ended.folder / "federated")
    assert state is not None
    assert len(state.rounds) == ROUNDS
