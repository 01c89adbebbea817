"""Files that come with the package: small, whole, and nobody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import task as tasks
from tasks.models import outliner, registry, weights
from tasks.models.encoders import encoder_file

FILES = weights.files_in(weights.SHIPPED)
OUTLINERS = [path for path in FILES if path.stem.endswith("_outlines")]
ENCODERS = [path for path in FILES if path not in OUTLINERS]


def test_there_are_some_and_they_are_found_by_name_and_by_digest() -> None:
    assert FILES
    for path in FILES:
        assert weights.shipped(f"shipped:{path.stem}") == path
        assert weights.in_folder(path.parent / "elsewhere")(weights.digest_of(path)) == path
    assert weights.shipped("shipped:none") is None
    assert weights.shipped(FILES[0].stem) is None


def test_all_together_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 5_000_000


@pytest.mark.parametrize("path", OUTLINERS, ids=lambda path: path.stem)
def test_each_outliner_is_read_for_its_task(path: Path) -> None:
    """Who made it and on what stands in its head; ``test_outliner`` plays it."""
    assert outliner.read(path.read_bytes()) is not None
    assert path.stem.removesuffix("_outlines") in tasks.names()
    with pytest.raises(encoder_file.BadEncoder):  # it is no encoder, and is not taken for one
        encoder_file.read(path.read_bytes())


@pytest.mark.parametrize("path", ENCODERS, ids=lambda path: path.stem)
def test_each_is_small_and_says_what_it_was_fitted_to(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    read = encoder_file.read(path.read_bytes())
    assert read.directions is not None
    assert read.facts.directions.startswith("600 phantoms of ")
    task = tasks.get(next(name for name in tasks.names() if path.stem.startswith(name)))
    digest = weights.digest_of(path)
    spec = {"name": "encoder", "weights": digest, "directions": 4, "pool": 0}
    network = registry.build(spec, task.form, find=weights.in_folder(path.parent))
    assert registry.arrays_of(network.trainable)["weight"].shape == (task.form.outputs, 4)
