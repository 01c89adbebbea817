"""One federation of two hospitals for the tests of this folder. nginx is a Debian package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.deployment.federation import Federation, federation
from tests.e2e.deployment.packages import debian


@pytest.fixture(scope="session")
def packages() -> None:
    debian({"nginx": "nginx-light"})


@pytest.fixture(scope="module")
def small(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two hospitals, three rounds, everything up."""
    with federation(tmp_path_factory.mktemp("federation")) as made:
        yield made
