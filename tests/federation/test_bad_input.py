"""What can be wrong with a hospital's data: a named error before anything is trained, or a counted warning."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from PIL import Image

from conf import load
from conf.schema.federation import ManifestFederation
from server.__main__ import client_app, provision_hospitals
from server.errors import HospitalNotReady, TrainingDiverged
from server.launch import run_study
from tasks.protocol import wire
from tasks.protocol.wire import TrainReport
from tests.federation.embedded import HOSPITALS, TINY, Ended, console, folder_of, play, with_own_phantoms
from tests.spread import spread

SHORT = ("federation.rounds=1", "evaluation.arms=[]")
Spoil = Callable[[Path], object]


def spoilt(ground: Path, output: Path, spoil: Spoil, *overrides: str) -> Ended:
    """A study in which something is wrong at cedar."""
    spoil(folder_of(with_own_phantoms(ground, output), "cedar"))
    return play(output, "spoilt", *SHORT, *overrides)


@pytest.fixture(autouse=True)
def drawn(whole: Ended) -> None:
    """The phantoms are there."""


def rewrite(folder: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    """Change the rows of a hospital's labels.csv."""
    path = folder / "labels.csv"
    rows = change(list(csv.DictReader(path.read_text().splitlines())))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["PatientID", "SOPInstanceUID", "label"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(lambda folder: shutil.rmtree(folder / "dicom"), ["no DICOM image", "dicom"], id="no folder"),
        pytest.param(
            lambda folder: [path.unlink() for path in folder.rglob("*.dcm")],
            ["no DICOM image", "mounted"],
            id="empty folder",
        ),
        pytest.param(
            lambda folder: rewrite(
                folder, lambda rows: [row | {"SOPInstanceUID": f"1.2.{i}"} for i, row in enumerate(rows)]
            ),
            ["labels.csv", "SOPInstanceUID", "1.2.0"],
            id="labels that match nothing",
        ),
        pytest.param(
            lambda folder: rewrite(folder, lambda rows: [row | {"label": "perhaps"} for row in rows]),
            ["labels.csv", "line 2", "perhaps", "benign, malignant"],
            id="labels of no class",
        ),
        pytest.param(
            lambda folder: (folder / "labels.csv").write_text("a,b\n1,2\n"), ["label", "SOPInstanceUID"], id="no column"
        ),
        pytest.param(
            lambda folder: [path.write_bytes(b"no DICOM") for path in folder.rglob("*.dcm")],
            ["no DICOM image"],
            id="files of another kind",
        ),
    ],
)
def test_data_that_cannot_be_used_is_refused_before_anything_is_trained(
    ground: Path, tmp_path: Path, spoil: Spoil, told: list[str]
) -> None:
    with pytest.raises(HospitalNotReady) as caught:
        spoilt(ground, tmp_path, spoil)
    message = str(caught.value)
    assert "cedar" in message
    assert [part for part in told if part not in message] == []
    assert not list(tmp_path.glob("studies/*/federated"))


def test_a_hospital_with_one_class_takes_part_and_is_warned_about(ground: Path, tmp_path: Path) -> None:
    def only_benign(folder: Path) -> None:
        rewrite(folder, lambda rows: [row | {"label": "benign"} for row in rows])

    ended = spoilt(ground, tmp_path, only_benign)
    assert "no patient is malignant" in ended.shown
    assert "validation patients of one class only" in " ".join(ended.shown.split())
    assert ended.results.arms["federated"]["cedar"].auc is None
    assert ended.results.dropped == {}
    assert "cedar" not in ended.results.comparable()
    assert ended.results.mean_auc("federated") is not None


def test_rows_that_repeat_are_counted_and_rows_that_contradict_have_no_label(ground: Path, tmp_path: Path) -> None:
    def repeat(folder: Path) -> None:
        other = {"benign": "malignant", "malignant": "benign"}
        rewrite(folder, lambda rows: [*rows, *rows[:3], rows[3] | {"label": other[rows[3]["label"]]}])

    ended = spoilt(ground, tmp_path, repeat)
    assert "DUPLICATE_LABEL_ROW 3" in ended.shown
    assert "CONTRADICTING_LABEL_ROWS 1" in ended.shown
    assert ended.results.dropped == {}


def test_files_that_cannot_be_read_are_counted(ground: Path, tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        first, second, third, *_ = sorted(folder.rglob("*.dcm"))
        first.write_bytes(first.read_bytes()[:2000])
        second.write_bytes(b"")
        third.write_bytes(b"this was never an image" * 100)

    ended = spoilt(ground, tmp_path, damage)
    (line,) = [line for line in ended.shown.splitlines() if "left out" in line]
    counted = sum(int(word.strip(",")) for word in line.split() if word.strip(",").isdigit())
    assert counted >= 3
    assert ended.results.dropped == {}


def test_too_few_patients_are_a_refusal_by_name_and_the_others_go_on(ground: Path, tmp_path: Path) -> None:
    def shrink(folder: Path) -> None:
        patients = sorted((folder / "dicom").iterdir())
        for patient in patients[4:]:
            shutil.rmtree(patient)

    ended = spoilt(ground, tmp_path, shrink)
    assert "NO_COHORT" in ended.results.dropped["cedar"]
    assert "cedar was left out" in ended.shown
    assert ended.results.arms["federated"].keys() >= {"alder", "birch"}


def poisoned_app() -> ClientApp:
    """The real app; what birch trained is replaced by NaN on its way out."""
    real, app = client_app(), ClientApp()

    def train(message: Message, context: Context) -> Message:
        reply = real(message, context)
        if "birch" not in str(context.node_config["site"]):
            return reply
        report = wire.decode(reply.content, TrainReport)
        arrays = {name: np.full_like(value, np.nan) for name, value in report.arrays.items()}
        return Message(wire.encode(replace(report, arrays=arrays)), reply_to=message)

    app.train()(train)
    app.evaluate()(lambda message, context: real(message, context))
    return app


def test_an_update_of_nan_is_dropped_by_name_and_the_model_stays_finite(ground: Path) -> None:
    ended = play(ground, "poisoned", "evaluation.arms=[]", load_app=poisoned_app)
    assert ended.results.dropped.keys() == {"birch"}
    assert "2 of 2 rounds" in ended.results.dropped["birch"]
    assert "not finite" in ended.results.dropped["birch"]
    assert "birch was left out" in ended.shown
    assert all(np.isfinite(value).all() for value in ended.state().weights.values())
    assert ended.results.arms["federated"]["birch"].auc is not None  # it is evaluated all the same


def test_training_that_diverges_everywhere_is_named_as_that_and_no_hospital_is_blamed(ground: Path) -> None:
    with pytest.raises(TrainingDiverged) as caught:
        play(ground, "diverging", "training.learning_rate=1e6", "training.steps=5", *SHORT)
    assert caught.value.dropped.keys() == set(HOSPITALS)
    assert all("UPDATE_NOT_FINITE" in reason or "beyond" in reason for reason in caught.value.dropped.values())
    assert "round 1, train: training has diverged at every hospital" in str(caught.value)
    assert "training.learning_rate=1e+06" in str(caught.value)
    (folder,) = (ground / "studies").glob("diverging-*")
    assert not (folder / "federated" / "checkpoint.json").exists()


# --- public sets, where one patient may turn up anywhere --------------------------------------------------------------


def public_set(folder: Path, patients: int = 24) -> Path:
    """Small pictures of two sites; p00 has images in both, and one row is there twice."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    rows = []
    for number in range(patients):
        label = number // 2 % 2
        pixels = rng.integers(0, 120, (48, 48)) + 100 * label
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append({"file": f"{number}.png", "site": "ab"[number % 2], "patient_id": f"p{number:02d}", "label": label})
    Image.fromarray(rng.integers(0, 120, (48, 48)).astype(np.uint8)).save(folder / "again.png")
    rows += [{"file": "again.png", "site": "b", "patient_id": "p00", "label": 0}, rows[5]]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def play_public(output: Path, data: Path, *overrides: str) -> Ended:
    tiny = [value for value in TINY if not value.startswith("federation.")]
    study = replace(
        load.load([*tiny, f"data_root={data}", f"output_dir={output}", "evaluation.arms=[]", *overrides]),
        federation=ManifestFederation(rounds=1),
    )
    shown_on, text = console()
    results = run_study(study, provision_hospitals, client_app, shown_on)
    return Ended(results, text.getvalue(), output / "studies" / results.study)


def test_a_patient_of_two_hospitals_is_given_wholly_to_one(tmp_path: Path) -> None:
    """Otherwise one hospital would train on a patient whom the other validates with."""
    ended = play_public(tmp_path / "out", public_set(tmp_path / "set"))
    assert "1 patients had images in several of them, and each was assigned to one." in ended.results.notes
    lists = {path.name.split(".")[0]: path.read_text().split() for path in tmp_path.rglob("*.patients.txt")}
    assert lists.keys() == {"a", "b"}
    assert sum("p00" in patients for patients in lists.values()) == 1
    assert len(lists["a"]) + len(lists["b"]) == 24
    assert "DUPLICATE_LABEL_ROW 1" in ended.shown


def test_no_patient_is_trained_on_and_validated_with(tmp_path: Path) -> None:
    from client.cohort import catalog
    from client.site import load as load_site
    from tasks import task as tasks

    ended = play_public(tmp_path / "out", public_set(tmp_path / "set"))
    task = tasks.get("breast_ultrasound")
    sides: dict[str, set[str]] = {"train": set(), "validation": set()}
    for path in (ended.folder / "sites").glob("*.yaml"):
        for side, patients in sides.items():
            patients |= {entry.patient for entry in catalog.entries(load_site(path), task, side)}
    assert not sides["train"] & sides["validation"]
    assert len(sides["train"] | sides["validation"]) == 24


@pytest.mark.parametrize(
    ("manifest", "told"),
    [(None, "manifest.csv"), ("file,site\n", "patient_id"), ("file,site,patient_id,label\n", "manifest.csv")],
    ids=["none", "a column is missing", "no rows"],
)
def test_a_public_set_that_cannot_be_used_is_refused(tmp_path: Path, manifest: str | None, told: str) -> None:
    (tmp_path / "set").mkdir()
    if manifest is not None:
        (tmp_path / "set" / "manifest.csv").write_text(manifest)
    with pytest.raises(HospitalNotReady, match=told):
        play_public(tmp_path / "out", tmp_path / "set")


def archive_app() -> ClientApp:
    """The real app; of what cedar sends one array is an .npz archive, in training and in evaluation."""
    real, app = client_app(), ClientApp()

    def answer(message: Message, context: Context) -> Message:
        reply = real(message, context)
        if "cedar" not in str(context.node_config["site"]):
            return reply
        sent = spread(reply.content)
        arrays = {**sent.array_records["arrays"]}
        name, good = min(arrays.items(), key=lambda item: item[0])
        file = io.BytesIO()
        np.savez(file, good.numpy())
        arrays[name] = Array(good.dtype, good.shape, good.stype, file.getvalue())
        content = {"head": sent.config_records["head"], "arrays": ArrayRecord(arrays)}
        return Message(RecordDict(content), reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    return app


@pytest.mark.parametrize("strategy", ["fedavg", "median"])
def test_an_archive_for_an_array_costs_its_sender_the_round_and_nobody_the_study(ground: Path, strategy: str) -> None:
    overrides = (f"strategy={strategy}", "evaluation.arms=[]", "federation.quorum=0.3")
    ended = play(ground, f"archive-{strategy}", *overrides, load_app=archive_app)
    assert ended.results.dropped.keys() == {"cedar"}
    told = ended.results.dropped["cedar"]
    assert "2 of 2 rounds" in told
    assert "train: TrainReport: bias is not an array" in told.replace("'", "")
    assert "evaluate: " in told
    assert all(np.isfinite(value).all() for value in ended.state().weights.values())
