"""``experiment=medmnist archive=FILE``: what follows from a file's name."""

from __future__ import annotations

import pytest

from conf import load
from conf.archives import task_of


@pytest.mark.parametrize(
    ("archive", "task"),
    [
        ("pathmnist.npz", "pathmnist"),
        ("a/b/organmnist3d.npz", "organmnist3d"),
        ("/sets/chestmnist_224.npz", "chestmnist"),
        ("my.npz", "my"),
        ("", ""),
    ],
)
def test_an_archives_name_says_which_task_it_is(archive: str, task: str) -> None:
    assert task_of(archive) == task


def test_one_word_chooses_task_folder_and_file() -> None:
    study = load.load(["experiment=medmnist", "archive=sets/retinamnist_64.npz"])
    assert (study.task.name, study.data_root) == ("retinamnist", "sets")
    assert load.to_plain(study)["federation"]["archive"] == "retinamnist_64.npz"
    assert load.from_plain(load.to_plain(study)) == study, "nothing in it is worked out anew elsewhere"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "archive is empty: medmnist hospitals read a file of MedMNIST; set archive=FOLDER/pathmnist.npz"),
        (["archive=sets/pathmnist.csv"], r"archive=sets/pathmnist\.csv: is not called as MedMNIST publishes its files"),
        (["archive=pathmnist_56.npz"], r"archive=pathmnist_56\.npz: is not called"),
    ],
)
def test_a_file_that_names_no_archive_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(load.ConfigError, match=told):
        load.load(["experiment=medmnist", *words])
