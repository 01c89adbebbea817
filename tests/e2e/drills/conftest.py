"""The federation that is drilled, and the table of what was seen."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.e2e.deployment.federation import Federation, federation
from tests.e2e.deployment.packages import debian
from tests.e2e.drills.drill import FAST, SEEN, STEADY


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    debian({"nginx": "nginx-light"})


@pytest.fixture(scope="module")
def drilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two hospitals that are there; the tests may break what they like and must mend it."""
    with federation(tmp_path_factory.mktemp("drills"), rounds=STEADY, settings=FAST) as made:
        yield made


@pytest.fixture(scope="session", autouse=True)
def table() -> Iterator[None]:
    """Write what was seen to the file that CONSILIUM_DRILLS names, and print it (with -s)."""
    yield
    for one in SEEN:
        print(
            f"\n{one.drill:<44} noticed {one.noticed_s:6.1f} s   next round {one.recovered_s:6.1f} s   {one.how}",
            end="",
        )
    if out := os.environ.get("CONSILIUM_DRILLS"):
        known = json.loads(Path(out).read_text()) if Path(out).exists() else []
        Path(out).write_text(json.dumps([*known, *map(asdict, SEEN)], indent=1), "utf-8")
