"""Phantoms are drawn once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.federation.embedded import Ended, play


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with the phantoms drawn; studies in it must have names of their own."""
    return tmp_path_factory.mktemp("federation")


@pytest.fixture(scope="session")
def whole(ground: Path) -> Ended:
    """A study that nothing went wrong in, with MLflow."""
    return play(ground, "whole", "tracking=mlflow")
