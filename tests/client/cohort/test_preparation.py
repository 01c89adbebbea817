"""From records of pictures to the cache: outlines go with them, on the same grid, whatever is blacked out."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.cohort.cache import ExampleCache, load_example, load_masks
from client.cohort.preparation import Decoding, Job, Prepared, blacked_out, prepare, side_by_side
from client.site import SiteSettings
from client.sources.files.folder import list_folder
from client.sources.record import Record, Unreadable
from client.sources.settings import FolderSource
from tasks.breast_ultrasound import TASK
from tasks.task import PhantomHospital
from tests.drawn import draw

Provision = Callable[..., SiteSettings]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("alder")
    draw(TASK, folder, PhantomHospital("alder", patients=2, images_per_patient=(2, 2)), 0)
    source = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=folder / "dicom", labels=folder / "labels.csv"
    )
    return list_folder(source, TASK, frozenset()).records


def _prepared(records: list[Record], site: SiteSettings) -> list[tuple[Path, Prepared | Unreadable]]:
    cache = ExampleCache(site, TASK)
    jobs = [Job(record, f"{number:02d}") for number, record in enumerate(records)]
    with Decoding() as decoding:
        return [(cache.path(job.example), outcome) for job, outcome in prepare(jobs, TASK, cache, decoding)]


def test_outlines_of_pictures_reach_the_cache(records: list[Record], provision_hospital: Provision) -> None:
    assert TASK.read_masks is not None
    outcomes = _prepared(records, provision_hospital())
    assert len(outcomes) == 4
    for record, (path, outcome) in zip(records, outcomes, strict=True):
        assert isinstance(outcome, Prepared)
        assert record.read_masks is not None
        picture = replace(record.read(), masks=record.read_masks())
        assert picture.regions, "black is drawn around the image"
        np.testing.assert_array_equal(load_masks(path), TASK.read_masks(picture))
        np.testing.assert_array_equal(load_example(path), TASK.read_example(blacked_out(picture)))
        masks = load_masks(path)
        assert masks is not None
        assert masks.any()


def test_pictures_that_nobody_outlined_have_no_masks(records: list[Record], provision_hospital: Provision) -> None:
    ((path, outcome),) = _prepared([replace(records[0], read_masks=None)], provision_hospital())
    assert isinstance(outcome, Prepared)
    assert load_masks(path) is None


def test_outlines_that_cannot_be_read_cost_the_picture(records: list[Record], provision_hospital: Provision) -> None:
    def broken() -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        raise Unreadable("MASK_UNREADABLE", "cut off")

    outcomes = _prepared([replace(records[0], read_masks=broken), records[1]], provision_hospital())
    refused, other = (outcome for _, outcome in outcomes)
    assert isinstance(refused, Unreadable)
    assert refused.reason == "MASK_UNREADABLE"
    assert isinstance(other, Prepared)


def test_work_side_by_side_keeps_its_order_and_what_nobody_waits_for_is_dropped() -> None:
    begun: list[int] = []

    def slower_at_first(job: int) -> int:
        begun.append(job)
        time.sleep(0.02 if job < 4 else 0)
        return job * job

    with Decoding() as decoding:
        assert list(side_by_side(slower_at_first, range(50), decoding)) == [(job, job * job) for job in range(50)]
        begun.clear()
        with closing(side_by_side(slower_at_first, range(50), decoding)) as work:
            assert next(work) == (0, 0)
        assert len(begun) < 10
