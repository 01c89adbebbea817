"""Files that come with the package: small, whole, and nobody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import task as tasks
from tasks.models import registry, weights
from tasks.models.encoders import encoder_file

FILES = weights.files_in(weights.SHIPPED)


def test_there_are_some_and_they_are_found_by_name_and_by_digest() -> None:
    assert FILES
    for path in FILES:
        assert weights.shipped(f"shipped:{path.stem}") == path
        assert weights.in_folder(path.parent / "elsewhere")(weights.digest_of(path)) == path
    assert weights.shipped("shipped:none") is None
    assert weights.shipped(FILES[0].stem) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_small_and_says_what_it_was_fitted_to(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    read = encoder_file.read(path.read_bytes())
    assert read.directions is not None
    assert read.facts.directions.startswith("600 phantoms of ")
    task = tasks.get(next(name for name in tasks.names() if path.stem.startswith(name)))
    digest = weights.digest_of(path)
    spec = {"name": "encoder", "weights": digest, "directions": 4, "pool": 0}
    network = registry.build(spec, task.form, find=weights.in_folder(path.parent))
    assert registry.arrays_of(network.trainable)["weight"].shape == (task.form.findings, 4)
