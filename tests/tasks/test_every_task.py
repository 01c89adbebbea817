"""What every task must keep, whoever wrote it: this is the suite that a new task passes before it is discussed.

``pytest tests/tasks/test_every_task.py -k NAME`` runs it for one.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from client.reading.contract import judge_pixels
from client.reading.dicom import DicomImage
from client.reading.evidence import examine
from client.reading.segments import is_segmentation
from client.sources.acquisition import acquisition_reader
from client.sources.files.folder import list_folder
from client.sources.labels.table import KEYS, label_of
from client.sources.record import Record
from client.sources.settings import FolderSource
from conf import load
from tasks import contract as contracts
from tasks import task as tasks
from tasks.answers import Answer, Classes, Measure
from tasks.models import registry
from tasks.task import PhantomHospital, Picture, Scan, Task, Volume

FOLDER = Path(tasks.__file__).parent
HEADINGS = ("## The reference", "## Who makes it, and how", "## Pitfalls")
ALWAYS = (
    *("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality"),
    *("StudyDate", "AccessionNumber", "Manufacturer", "InstanceNumber", "ImageType", "PatientSex", "BodyPartExamined"),
    *("Rows", "Columns", "BitsStored", "PhotometricInterpretation", "LossyImageCompression", "BurnedInAnnotation"),
)
SMALL = PhantomHospital("alder", patients=6, prevalence=0.5)
FEW_SCANS = PhantomHospital("alder", patients=30, prevalence=0.5)
FEW_IMAGES = PhantomHospital("alder", patients=100, prevalence=0.5, images_per_patient=(1, 1))


@dataclass(frozen=True)
class Drawn:
    """A phantom hospital of a task."""

    task: Task
    folder: Path

    def files(self) -> list[Path]:
        return sorted((self.folder / "dicom").glob("*/*.dcm"))

    def paths(self) -> list[Path]:
        """Of images; segmentations are no images of the patient."""
        return [path for path in self.files() if not is_segmentation(dcmread(path, stop_before_pixels=True))]

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "labels.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def key(self) -> str:
        """What a row is about: an image, or an examination of many."""
        return next(key for key in KEYS if key in self.rows()[0])

    def source(self) -> FolderSource:
        folder, labels = self.folder / "dicom", self.folder / "labels.csv"
        return FolderSource(kind="folder", task=self.task.name, issuer="alder", path=folder, labels=labels)


READS_SCANS = {name for name in tasks.clinical() if tasks.get(name).sequences}


@pytest.fixture(params=tasks.clinical())
def task(request: pytest.FixtureRequest) -> Task:
    return tasks.get(request.param)


@pytest.fixture(scope="module", params=tasks.clinical())
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    drawn = Drawn(tasks.get(request.param), tmp_path_factory.mktemp(request.param))
    drawn.task.draw_phantom(drawn.folder, SMALL, 0)
    return drawn


@pytest.fixture
def strict_reading() -> Iterator[None]:
    """pydicom raises where a value does not fit its representation, instead of warning."""
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    yield
    pydicom.config.settings.reading_validation_mode = before


def truth_of(task: Task, text: str) -> float:
    """What a phantom's label says."""
    found = label_of(text, task.answer, task.classes)
    assert found is not None, text
    return found


# What people read


def test_it_says_what_it_asks(task: Task) -> None:
    assert task.question.endswith("?")
    assert len(set(task.classes)) == 2
    for code in (task.finding, task.procedure):
        assert code.scheme
        assert code.meaning
        assert 1 <= len(code.value) <= 16, "a CodeValue is a short string (PS3.3 table 8.8-1a)"


def test_labels_are_explained_under_the_headings_that_every_card_has(task: Task) -> None:
    text = (FOLDER / task.name / "labels.md").read_text("utf-8")
    assert text.startswith(f"# What the label means: {task.name}\n")
    assert f"**Question.** {task.question}" in text
    assert f"**Classes.** `{task.classes[0]}` (0), `{task.classes[1]}` (1)." in text
    assert task.answer.kind == "binary" or f"**Answer.** {task.answer.permitted}." in text
    places = [text.index(f"\n{heading}\n") for heading in HEADINGS]
    assert places == sorted(places)
    for start, end in zip(places, [*places[1:], len(text)], strict=True):
        assert len(text[start:end].split()) > 25, "a heading has something below it"


def test_the_table_of_tasks_has_its_row(task: Task) -> None:
    row = f"| `{task.name}` | {task.question} | {task.classes[0]}, {task.classes[1]} |"
    assert row in (FOLDER / "README.md").read_text("utf-8").splitlines()


def test_a_study_can_choose_it(task: Task) -> None:
    assert load.load([f"task={task.name}"]).task.name == task.name


# From a picture or a scan to an input


@pytest.mark.parametrize("name", sorted(set(tasks.clinical()) - READS_SCANS))
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (127, 64), (300, 301)])
def test_any_picture_becomes_an_example(name: str, shape: tuple[int, int]) -> None:
    task = tasks.get(name)
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    before = pixels.copy()
    beside = tuple(1 - pixels for _ in task.moments[1:])
    example = task.read_example(Picture(pixels, beside=beside))
    assert (example.shape, example.dtype) == (task.example_shape, np.float32)
    assert np.all((example >= 0) & (example <= 1))
    np.testing.assert_array_equal(example, task.read_example(Picture(before, beside=beside)))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("name", sorted(READS_SCANS))
@pytest.mark.parametrize(("shape", "spacing"), [((2, 3, 4), 30.0), ((40, 64, 50), 2.5), ((5, 300, 20), 0.7)])
def test_any_scan_becomes_an_example(name: str, shape: tuple[int, int, int], spacing: float) -> None:
    """Of any orientation, with all sequences or the first alone; and its outlines lie on the same grid."""
    task, rng = tasks.get(name), np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * spacing
    affine[:3, 3] = rng.normal(0, 100, 3)
    marked = np.zeros(shape, dtype=np.bool_)
    marked[tuple(size // 2 for size in shape)] = True
    masks = {structure.name: Volume(marked, affine) for structure in task.structures}
    values = {one.name: rng.normal(0, 300, shape).astype(np.float32) for one in task.sequences}
    before = {name: some.copy() for name, some in values.items()}
    for taken in (task.sequences, task.sequences[:1]):
        scan = Scan({one.name: Volume(values[one.name], affine) for one in taken}, masks)
        example = task.read_example(scan)
        assert (example.shape, example.dtype) == (task.example_shape, np.float32)
        assert np.all((example >= 0) & (example <= 1))
        np.testing.assert_array_equal(example, task.read_example(scan))
        assert task.read_masks is not None
        found = task.read_masks(scan)
        assert (found.shape, found.dtype) == ((len(task.structures), *task.example_shape[1:]), np.bool_)
    for one, some in before.items():
        np.testing.assert_array_equal(values[one], some)


def test_a_clip_gives_a_bounded_number_of_frames_evenly_spread(task: Task) -> None:
    assert 1 <= task.frames_per_clip <= 32
    for number in (1, 2, 7, 500):
        frames = task.frames(number)
        if task.moments:
            assert frames == (0,)
            assert task.beside(number)[-1:] == ((number - 1,) if number >= len(task.moments) else ())
            continue
        assert len(frames) == min(number, task.frames_per_clip)
        assert list(frames) == sorted(set(frames))
        assert min(frames) >= 0
        assert max(frames) < number
        gaps = np.diff([-0.5, *frames, number - 0.5])
        assert gaps[1:-1].max(initial=0) - gaps[1:-1].min(initial=number) <= 1


def test_the_loss_is_finite_and_smaller_where_it_is_right(task: Task) -> None:
    form = task.form
    for pixels in {0, form.structures * math.prod(form.shape[1:])}:  # with and without outlines
        marked = (torch.arange(2 * pixels).reshape(2, pixels) % 2).float()
        extremes = [_extremes(answer) for answer in task.answers]
        truths = torch.cat([torch.tensor([truth for truth, _ in both])[:, None] for both in extremes] + [marked], dim=1)
        told = [torch.stack([outputs for _, outputs in both]) for both in extremes]
        right, wrong = (task.loss(s * torch.cat([*told, 2 * marked - 1], dim=1), truths) for s in (3.0, -3.0))
        assert right.shape == ()
        assert 0 <= float(right) < float(wrong) < float("inf")
        extreme = torch.tensor([1e4, -1e4])[:, None].expand(2, form.outputs + pixels)
        assert torch.isfinite(task.loss(extreme, truths))
        assert float(task.loss(extreme, torch.full_like(truths, math.nan))) == 0, "what nobody knows teaches nothing"


def _extremes(answer: Answer) -> list[tuple[float, torch.Tensor]]:
    """The least and the greatest truth of a question, each with outputs that say so."""
    ones = torch.ones(answer.outputs)
    if isinstance(answer, Classes):
        return [(n, 2 * (torch.arange(answer.outputs) == n).float() - 1) for n in (0, answer.outputs - 1)]
    if isinstance(answer, Measure):
        return [(answer.low, -16 * ones / 3), (answer.high, 16 * ones / 3)]
    return [(0.0, -ones), (answer.cells - 1.0, ones)]


@pytest.mark.parametrize("name", [name for name in tasks.clinical() if tasks.get(name).augment is not None])
def test_the_random_part_is_drawn_from_the_generator_alone(name: str) -> None:
    """And keeps the form of what it is given, with outlines where the picture went."""
    task = tasks.get(name)
    assert task.augment is not None
    example = torch.zeros(task.example_shape)
    middle = tuple(slice(size // 3, size // 3 + size // 4) for size in task.example_shape[1:])
    example[(slice(None), *middle)] = 0.8
    masks = (example[0] > 0).expand(len(task.structures), *task.example_shape[1:]).clone()
    before = example.clone(), masks.clone(), torch.random.get_rng_state()
    found = [task.augment(example, masks, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2, 3)]
    for image, outlines in found:
        assert (image.shape, image.dtype) == (example.shape, torch.float32)
        assert (outlines.shape, outlines.dtype) == (masks.shape, torch.bool)
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        if len(outlines):
            assert float(image[0][outlines[0]].mean()) > float(image[0][~outlines[0]].mean()) + 0.3
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not (torch.equal(found[1][0], found[2][0]) and torch.equal(found[2][0], found[3][0]))
    assert torch.equal(example, before[0])
    assert torch.equal(masks, before[1])
    assert torch.equal(torch.random.get_rng_state(), before[2])


# Phantoms


def test_every_file_has_its_row_and_every_patient_one_label(small: Drawn) -> None:
    headers = [dcmread(path, stop_before_pixels=True) for path in small.paths()]
    rows, key = small.rows(), small.key()
    assert sorted({(h.PatientID, h[key].value) for h in headers}) == sorted((r["PatientID"], r[key]) for r in rows)
    if small.task.answer.kind == "binary":
        assert {r["label"] for r in rows} <= set(small.task.classes)
    assert all(math.isfinite(truth_of(small.task, r["label"])) for r in rows)
    assert len({(r["PatientID"], r["label"]) for r in rows}) == len({r["PatientID"] for r in rows}) == SMALL.patients


@pytest.mark.usefixtures("strict_reading")
def test_files_are_valid(small: Drawn) -> None:
    seen = set()
    for path in small.paths():
        dataset = dcmread(path)
        assert [keyword for keyword in ALWAYS if keyword not in dataset] == []
        assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
        assert dataset.SOPClassUID.name.endswith(("Storage", "Storage - For Presentation")), "a known storage class"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.SOPInstanceUID.is_valid
        assert dataset.PatientIdentityRemoved == "YES"
        assert "phantom" in f"{dataset.PatientName} {dataset.DeidentificationMethod}".lower()
        assert dataset.PatientID == path.parent.name
        seen.add(dataset.SOPInstanceUID)
        for element in dataset.iterall():
            assert element.value is not None  # converts it, which is when pydicom complains
        _well_formed(dataset)
    assert len(seen) == len(small.paths())


def _well_formed(dataset: Dataset) -> None:
    samples = dataset.Rows * dataset.Columns * dataset.get("NumberOfFrames", 1) * dataset.SamplesPerPixel
    wanted = samples * dataset.BitsAllocated // 8
    assert len(dataset.PixelData) == wanted + wanted % 2
    if dataset.get("NumberOfFrames", 1) > 1:
        assert dataset.FrameIncrementPointer in dataset, "what tells one frame from the next (PS3.3 C.7.6.6)"


def test_files_keep_the_tasks_own_contract(small: Drawn) -> None:
    contract = contracts.of_task(small.task.name)
    read = acquisition_reader(small.source(), small.task)
    for path in small.paths():
        with DicomImage(path) as image:
            acquisition = read(image.header)
            pixels = judge_pixels(contract, examine(image.picture(0).pixels, acquisition.bits_stored), 8)
        assert acquisition.judgement.rejected == pixels.rejected == ()


def test_the_same_hospital_and_seed_give_the_same_bytes(small: Drawn, tmp_path: Path) -> None:
    """Of its first patients as well where it has fewer."""
    first = replace(SMALL, patients=2)
    small.task.draw_phantom(tmp_path / "again", first, 0)
    small.task.draw_phantom(tmp_path / "other", first, 1)
    again, other = (Drawn(small.task, tmp_path / name) for name in ("again", "other"))
    before = [path for path in small.files() if path.parent.name in {row["PatientID"] for row in again.rows()}]
    assert [path.read_bytes() for path in again.files()] == [path.read_bytes() for path in before]
    assert again.rows() == small.rows()[: len(again.rows())]
    assert {row[small.key()] for row in other.rows()}.isdisjoint(row[small.key()] for row in small.rows())


def test_outlines_reach_the_examples_grid_and_findings_their_columns(small: Drawn) -> None:
    records = list_folder(small.source(), small.task, frozenset()).records
    structures = len(small.task.structures)
    seen = np.zeros(structures, dtype=np.bool_)
    for record in records:
        assert len(record.findings) in (0, len(small.task.secondary_findings))
        if structures and not small.task.sequences:
            assert small.task.read_masks is not None
            assert record.read_masks is not None
            masks = small.task.read_masks(replace(record.read(), masks=record.read_masks()))
            assert (masks.shape, masks.dtype) == ((structures, *small.task.example_shape[1:]), np.bool_)
            seen |= masks.any(axis=(1, 2))
    assert seen.all() or small.task.sequences
    columns = set(small.rows()[0]) - {*KEYS, "label"}
    assert columns == {finding.name for finding in small.task.secondary_findings}


def test_outlines_find_their_way_back(small: Drawn) -> None:
    task = small.task
    for record in list_folder(small.source(), task, frozenset()).records[:4] if task.structures else []:
        assert task.read_masks is not None
        assert task.place_masks is not None
        seen, drawn = _with_masks(record)
        masks = task.read_masks(seen)
        placed = task.place_masks(seen, masks)
        assert (placed.shape, placed.dtype) == (drawn.shape, np.bool_)
        for structure in range(len(task.structures)):
            if drawn[structure].any() and masks[structure].sum() > 20:
                assert _dice(placed[structure], drawn[structure]) > 0.7
        again = task.read_masks(_changed(seen, task, placed))
        assert _dice(again, masks) > 0.9


def _with_masks(record: Record) -> tuple[Any, NDArray[np.bool_]]:
    """What a task reads, and its masks on the grid of the picture or the first volume."""
    if record.read_scan is None:
        assert record.read_masks is not None
        masks = record.read_masks()
        return replace(record.read(), masks=masks), masks
    scan = record.read_scan(None)
    assert scan.masks is not None
    return scan, np.stack([mask.values for mask in scan.masks.values()])


def _changed(seen: Any, task: Task, masks: NDArray[np.bool_]) -> Any:
    if not isinstance(seen, Scan):
        return replace(seen, masks=masks)
    grid = seen.volumes[task.sequences[0].name].affine
    return replace(seen, masks={s.name: Volume(m, grid) for s, m in zip(task.structures, masks, strict=True)})


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.mark.parametrize("name", sorted(set(tasks.clinical()) - READS_SCANS))
def test_there_is_something_to_learn_but_not_everything(name: str, tmp_path: Path) -> None:
    """By the default model and training, without noise: more than two standard errors above chance."""
    drawn = Drawn(tasks.get(name), tmp_path)
    drawn.task.draw_phantom(tmp_path, FEW_IMAGES, 0)
    patients, targets, examples = _examples(drawn)
    labels = drawn.task.answer.event_of(targets[:, 0])
    model = vars(load.load([f"task={name}"]).model)
    if min(drawn.task.example_shape[1:]) < model["resolution"]:
        model = model | {"resolution": 0, "J": 2}  # smaller images than it is made for
    network = registry.build(model, drawn.task.form)
    assert network.features is not None
    with torch.no_grad():
        inputs = torch.cat([network.features(part) for part in torch.from_numpy(examples).split(64)])
    train = np.isin(patients, sorted(set(patients))[:50])
    _descend(drawn.task, network.trainable, inputs[train], torch.from_numpy(targets[train]))
    with torch.no_grad():
        scores = drawn.task.form.scores(network.trainable(inputs[~train]))
    held = sorted(set(patients[~train]))
    told = [labels[patients == patient].max() for patient in held]
    _better_than_chance(told, [scores[patients[~train] == patient].mean() for patient in held])


@pytest.mark.parametrize("name", sorted(READS_SCANS))
def test_scans_have_something_to_learn_but_not_everything(name: str, tmp_path: Path) -> None:
    """By what a reader would measure within the outlines: the networks of volumes would take minutes."""
    drawn = Drawn(tasks.get(name), tmp_path)
    drawn.task.draw_phantom(tmp_path, FEW_SCANS, 0)
    records = list_folder(drawn.source(), drawn.task, frozenset()).records
    told = drawn.task.answer.event_of(np.array([record.label for record in records]))
    measures = np.array([_measures(drawn.task, record) for record in records])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    scores = cross_val_predict(model, measures, told, cv=10, method="decision_function")
    _better_than_chance(told, scores)


def _measures(task: Task, record: Record) -> list[float]:
    """Sizes of what is outlined and of its parts, and grey values within."""
    assert record.read_scan is not None
    assert task.read_masks is not None
    scan = record.read_scan(None)
    example, masks = task.read_example(scan), task.read_masks(scan)
    grey = [float(statistic(channel[masks[0]])) for channel in example for statistic in (np.mean, np.std, np.max)]
    return [*np.cbrt(masks.sum(axis=(1, 2, 3))).tolist(), *grey]


def _better_than_chance(told: Sequence[float] | NDArray[Any], scores: Sequence[float] | NDArray[Any]) -> None:
    auc, positives = roc_auc_score(told, scores), np.sum(told)
    error = np.sqrt((len(told) + 1) / (12 * positives * (len(told) - positives)))  # of chance (Mann and Whitney, 1947)
    assert 0.5 + 2 * error < auc < 0.995


def _examples(drawn: Drawn) -> tuple[NDArray[np.str_], NDArray[np.float32], NDArray[np.float32]]:
    """Patients, findings (the label first, NaN for not known) and examples of images, at most two a patient: enough to
    see whether there is anything."""
    of_patient: dict[str, list[Record]] = {}
    for record in list_folder(drawn.source(), drawn.task, frozenset()).records:
        of_patient.setdefault(record.patient_id, []).append(record)
    records = [record for some in of_patient.values() for record in some[:2]]
    patients = np.array([record.patient_id for record in records])
    unknown = (None,) * len(drawn.task.secondary_findings)
    targets = np.array([(record.label, *(record.findings or unknown)) for record in records], dtype=np.float32)
    return patients, targets, np.stack([drawn.task.read_example(record.read()) for record in records])


def _descend(task: Task, head: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """A hundred steps with gradients clipped as under privacy, which is what the default learning rate is for."""
    terms = load.load([])
    optimiser = torch.optim.SGD(head.parameters(), terms.training.learning_rate)
    for _ in range(terms.federation.rounds * terms.training.steps):
        optimiser.zero_grad()
        outputs = head(inputs)
        outlines = torch.full((len(outputs), outputs.shape[1] - task.form.outputs), math.nan)
        task.loss(outputs, torch.cat([targets, outlines], dim=1)).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), terms.privacy.clip_norm)
        optimiser.step()
