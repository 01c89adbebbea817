"""Each patient is counted once in each table, whatever their images say and however many they are."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from client.cohort import cache, index
from client.cohort.catalog import CatalogEntry
from client.cohort.survey import FACTS, SurveyedPatients, patients_of, shares
from tasks import task as tasks
from tasks.protocol.subgroups import UNKNOWN
from tests.client.hospital import PATIENTS, TASK, Archive, Hospital, draw_archive
from tests.client.surveying import survey

EVERYTHING = survey("label", "sex", "age*sex", "vendor", "spacing", "label*vendor", "intensity")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="module")
def members(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> SurveyedPatients:
    hospital = Hospital.provision(tmp_path_factory.mktemp("hospital"), archive)
    return patients_of(hospital.settings, tasks.get(TASK))


def test_everybody_on_both_sides_is_counted_once_in_each_table(members: SurveyedPatients) -> None:
    assert len(members.images) == PATIENTS
    tables = members.tables(EVERYTHING)
    assert {name: table.shape for name, table in tables.items()} == EVERYTHING.shapes()
    for name, table in tables.items():
        assert table.sum() == pytest.approx(PATIENTS, abs=PATIENTS * 8 * 2**-30), name
        assert (table >= 0).all()
    labels = Counter(max(entry.label for entry in each) for each in members.images.values())
    assert tables["label"].tolist() == [labels[0], labels[1]]
    assert tables["sex"].tolist() == [PATIENTS, 0, 0], "the phantoms are women"
    assert tables["vendor"].tolist() == [0, 0, PATIENTS, 0]
    assert tables["age.sex"][EVERYTHING.levels("age").index(UNKNOWN), 0] == PATIENTS
    assert tables["spacing"][-1] == 0, "the headers have a calibrated region"


def test_a_patient_changes_each_table_by_one_at_most(members: SurveyedPatients) -> None:
    """And some patients have two images: counting those would change it by two."""
    assert max(map(len, members.images.values())) == 2
    whole = members.tables(EVERYTHING)
    for patient in members.images:
        others = replace(members, images={p: each for p, each in members.images.items() if p != patient})
        without = others.tables(EVERYTHING)
        for name, table in whole.items():
            change = np.abs(table - without[name]).sum()
            assert change == 1.0 if name != "intensity" else 1 - 8 * 2**-30 <= change <= 1.0


def by_image(members: SurveyedPatients) -> NDArray[np.float64]:
    """A wrong way: every image counts."""
    counts = np.zeros(2)
    for entries in members.images.values():
        for entry in entries:
            counts[entry.label] += 1
    return counts


def test_counting_images_would_be_seen(members: SurveyedPatients) -> None:
    changes = [
        np.abs(
            by_image(members) - by_image(replace(members, images={q: e for q, e in members.images.items() if q != p}))
        )
        for p in members.images
    ]
    assert max(change.sum() for change in changes) > 1


PIXELS = hnp.arrays(
    np.float32, (4, 4), elements=st.floats(-2, 2, width=32) | st.sampled_from([np.nan, np.inf, -np.inf])
)


@given(st.lists(PIXELS, max_size=3), st.integers(2, 40))
def test_shares_of_a_patient_are_one_count_and_never_more(images: list[NDArray[np.float32]], cells: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stored = {Path(str(number)): image for number, image in enumerate(images)}
        patch.setattr(cache, "load_example", stored.__getitem__)
        found = shares([CatalogEntry("p", 0, path) for path in stored], cells)
    assert found.shape == (cells,)
    assert (found >= 0).all()
    assert found.sum() <= 1.0, "exactly: the ledger counts a sensitivity of 1"
    assert found.sum() >= (1 - cells * 2**-30 if images else 0)
    assert (found * 2**30 == np.floor(found * 2**30)).all(), "sums of these are exact"


def test_an_image_that_is_gone_is_left_out_and_nobody_else_is_affected(members: SurveyedPatients) -> None:
    patient = next(p for p, each in members.images.items() if len(each) == 1)
    entry = members.images[patient][0]
    gone = {**members.images, patient: [replace(entry, example=entry.example.with_suffix(".gone"))]}
    document = survey("label", "intensity")
    whole, without = members.tables(document), replace(members, images=gone).tables(document)
    assert np.array_equal(whole["label"], without["label"])
    others = {p: each for p, each in members.images.items() if p != patient}
    assert np.array_equal(without["intensity"], replace(members, images=others).tables(document)["intensity"])


def test_the_catalog_keeps_what_a_survey_may_ask(members: SurveyedPatients) -> None:
    with index.opened(members.site) as catalog:
        facts = [json.loads(image.facts) for image in catalog.images(TASK, ["st-anne"])]
    kept = {key for each in facts for key in each}
    assert FACTS["spacing"] in kept
    assert all(float(each[FACTS["spacing"]]) > 0 for each in facts)


def test_a_catalog_without_spacings_counts_everybody_as_not_recorded(members: SurveyedPatients) -> None:
    """As one was before they were kept: the next ingest adds them."""
    with index.opened(members.site) as catalog:
        images = catalog.images(TASK, ["st-anne"])
        with catalog._connection as connection:
            connection.execute("UPDATE images SET facts = json_remove(facts, '$.SpacingMm')")
        try:
            assert members.tables(survey("spacing"))["spacing"].tolist() == [0, 0, 0, 0, PATIENTS]
        finally:
            with catalog._connection as connection:
                connection.executemany(
                    "UPDATE images SET facts = ? WHERE image = ?", [(one.facts, one.image) for one in images]
                )
