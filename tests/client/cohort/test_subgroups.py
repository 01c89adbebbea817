"""Who is in which group, from the catalog of a real archive; and a hospital whose labels are dealt out at random."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from client.cohort import subgroups
from client.cohort.dataset import Cohort, open_cohort
from conf.schema.model import ScatterLinear
from tasks import task as tasks
from tasks.models import registry
from tasks.protocol.subgroups import LEVELS
from tests.client.hospital import TASK, Archive, Hospital, draw_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("subgroups"))


def cohort(hospital: Hospital, side: str) -> Cohort:
    spec = asdict(ScatterLinear(resolution=16, J=2, L=2, pool=2))
    task = tasks.get(TASK)
    return open_cohort(hospital.settings, task, side, spec, registry.build(spec, task.form))


def test_the_phantoms_are_women_of_no_age_on_no_known_scanner(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive)
    patients = list(cohort(hospital, "validation").patients)
    assert patients == sorted(set(patients))
    levels = subgroups.levels_of(hospital.settings, tasks.get(TASK), patients)
    told = {name: {LEVELS[name][n] for n in numbers} for name, numbers in levels.items()}
    assert told == {"sex": {"female"}, "age": {"not recorded"}, "vendor": {"other"}}


def test_a_patient_of_another_hospital_is_in_no_group(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive)
    levels = subgroups.levels_of(hospital.settings, tasks.get(TASK), ["somebody"])
    assert levels["sex"].tolist() == [LEVELS["sex"].index("not recorded")]


def test_small_groups_are_left_out_of_exact_counts() -> None:
    counts = np.zeros((3, 2, 4))
    counts[0], counts[1, 0], counts[1, 1], counts[2] = 3, 9, 2, 2
    kept = subgroups.suppressed(counts)
    np.testing.assert_array_equal(kept[0], counts[0])
    assert not kept[1:].any()


def test_shuffled_labels_are_the_same_labels_of_other_patients_in_every_round(archive: Archive, tmp_path: Path) -> None:
    plain = Hospital.provision(tmp_path / "plain", archive)
    shuffled = Hospital.provision(tmp_path / "shuffled", archive, simulated=True, shuffled_labels=1)
    key = str(shuffled.settings.key)
    other = Hospital.provision(tmp_path / "other", archive, simulated=True, shuffled_labels=2, key=key)
    own, dealt, again = cohort(plain, "train"), cohort(shuffled, "train"), cohort(shuffled, "train")
    assert Counter(own.patient_labels().tolist()) == Counter(dealt.patient_labels().tolist())
    assert not torch.equal(own.patient_labels(), dealt.patient_labels())
    assert torch.equal(dealt.targets, again.targets)
    assert torch.equal(own.inputs, dealt.inputs)
    assert not torch.equal(dealt.targets, cohort(other, "train").targets), "another number deals them out anew"
    validation = cohort(shuffled, "validation")
    assert torch.equal(validation.targets, cohort(plain, "validation").targets), "it is judged by the truth"
    assert all(len(dealt.targets[rows].unique()) == 1 for rows in dealt.rows)
