"""A study's model as one file: safetensors, with a header in JSON that says what it belongs to.

The coordinator's side writes it when a study ends; a hospital reads it to run the model on its own images. Nothing in
it can be executed: it has names, shapes and numbers, and the network is built from the reader's own code. A person
passes its SHA-256 on through another channel. For a network with a frozen encoder it contains that encoder's file, byte
for byte; the digest in the study document is checked whenever the network is built.

The header has a probe: the model's output for a few computed pictures. The reader computes the same with the rebuilt
model, so that a release, library or processor with different results is detected before any patient's image is scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tasks.metrics.interval import Interval
from tasks.metrics.recalibration import Recalibration
from tasks.models.network import Network
from tasks.models.weights import Finder, carried
from tasks.protocol.study import STRICT, Count, HexDigest, Name
from tasks.protocol.wire import Arrays
from tasks.task import Picture, Scan, Task, Volume

FILE = "model.safetensors"
"""Its name in a study's folder."""
MOST_BYTES = 1 << 31
_HEAD = "consilium"
_ENCODER = "encoder-file"
"""A tensor of bytes; no parameter has that name, since Python names have no '-'."""
_LENGTH = 8
_PICTURES = ((480, 640), (400, 400), (700, 300))
_SCANS = ((24, 96, 96), (32, 80, 100), (20, 120, 90))
_CLOSE = 1e-3
"""Logits that differ by more than this, plus this fraction, were computed differently: float32 gives about 1e-5."""


@dataclass(frozen=True, config=STRICT)
class ModelHead:
    """What a model belongs to: the header of its file.

    Attributes:
        study: the study's name.
        document: digest of the study's document, which hospitals approve.
        release: of Consilium, at the end of the study.
        task, task_version, contract, model: as in the study document.
        threshold: the mean score of a patient's images from which the study's report calls the patient positive;
            ``None`` if the model was not evaluated.
        accepted: whether it has passed the study's own gate; ``None`` where none was set.
        probe: logits of the pictures of ``probe``; empty for a model with a part that stays at the hospitals.
        calibration: from the mean score of a patient's images to a probability; ``None`` for a model that was not
            evaluated, or of a release before calibration: its scores are no probabilities.
        prevalence: of the finding among the patients of whom that is right.
        sensitivity, specificity: at the threshold, of all validation patients of the study; ``None`` where there are
            none, or in a file of an older release.
        calibration_error: of probabilities, each hospital calibrated by the others' patients; likewise.
    """

    study: Name
    document: HexDigest
    release: Annotated[str, Field(max_length=40)]
    task: Name
    task_version: Count
    contract: HexDigest
    model: dict[str, str | int | float | bool]
    threshold: Annotated[float, Field(ge=0, le=1)] | None
    accepted: bool | None
    probe: Annotated[list[float], Field(max_length=16)]
    calibration: Recalibration | None = None
    prevalence: Annotated[float, Field(ge=0, le=1)] | None = None
    sensitivity: Interval | None = None
    specificity: Interval | None = None
    calibration_error: Interval | None = None


class BadModelFile(ValueError):
    """A file is not a usable model; the text says why."""


_ADAPTER: TypeAdapter[ModelHead] = TypeAdapter(ModelHead)


def pack(head: ModelHead, arrays: Arrays, encoder: bytes = b"") -> bytes:
    """The file's content; the same for the same model.

    Args:
        encoder: content of the frozen encoder's file, if the network has one.

    >>> head = ModelHead(
    ...     study="demo-1", document="0" * 64, release="0.2.0", task="breast_ultrasound", task_version=1,
    ...     contract="1" * 64, model={"name": "scatter_linear"}, threshold=0.5, accepted=None, probe=[],
    ... )
    >>> content = pack(head, {"bias": np.zeros(1, np.float32)})
    >>> again, arrays, _ = unpack(content)
    >>> again == head, arrays["bias"]
    (True, array([0.], dtype=float32))
    >>> unpack(content[:-1])
    Traceback (most recent call last):
    tasks.models.model_file.BadModelFile: it is not a safetensors file of numbers: ...
    """
    text = json.dumps(_ADAPTER.dump_python(head), sort_keys=True, allow_nan=False)
    beside = {_ENCODER: np.frombuffer(encoder, dtype=np.uint8)} if encoder else {}
    return save(dict(sorted(arrays.items())) | beside, {_HEAD: text})


def unpack(content: bytes) -> tuple[ModelHead, Arrays, Finder | None]:
    """Header, trained tensors, and what finds the frozen encoder's file, if there is one.

    Raises:
        BadModelFile: it is not a safetensors file, or has no valid header.
    """
    try:
        arrays = load(content)
        length = int.from_bytes(content[:_LENGTH], "little")
        metadata = json.loads(content[_LENGTH : _LENGTH + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadModelFile(
            f"it is not a safetensors file of numbers: {error}; it is another file or was not copied whole, so ask for "
            "it again"
        ) from None
    if _HEAD not in metadata:
        raise BadModelFile(f"it has no Consilium header: ask for the study's {FILE}, or the file of `consilium export`")
    try:
        encoder = arrays.pop(_ENCODER, None)
        find = None if encoder is None else carried(encoder.tobytes())
        return _ADAPTER.validate_json(metadata[_HEAD]), arrays, find
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise BadModelFile(f"its header is of another release, or damaged: {problems}") from None


def found(path: Path) -> Path:
    """The file itself, or the only safetensors file of a folder.

    Raises:
        BadModelFile: there is none, or more than one.
    """
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise BadModelFile(f"the folder {path} has no safetensors file; name the file of the model")
    if len(files) != 1:
        raise BadModelFile(f"the folder {path} has {len(files)} safetensors files; name one of them")
    return files[0]


def digest(content: bytes) -> str:
    """SHA-256 of the file as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


@torch.no_grad()
def probe(task: Task, network: Network) -> list[float]:
    """The network's outputs for the task's own question, image by image, for ``probe_examples``."""
    network.trainable.eval()
    outputs = network.outputs(torch.from_numpy(probe_examples(task)))[:, : task.answer.outputs]
    return [float(output) for output in outputs.flatten()]


def probe_examples(task: Task) -> NDArray[np.float32]:
    """Computed pictures or scans of several shapes, each through the task's own transform: float32 (images,
    *``Task.example_shape``)."""
    made = [_scan(task, *size) for size in _SCANS] if task.sequences else [_picture(task, *size) for size in _PICTURES]
    return np.stack([task.read_example(one) for one in made])


def agrees(stored: list[float], computed: list[float]) -> bool:
    """Whether two probes come from the same computation, within float32's precision."""
    return len(stored) == len(computed) and bool(np.allclose(stored, computed, rtol=_CLOSE, atol=_CLOSE))


def _picture(task: Task, rows: int, columns: int) -> Picture:
    """Blobs and fine texture in 8 bits: integers, so that every machine has the same picture, and moved down for each
    moment or colour that is read beside it."""
    y, x = np.mgrid[0:rows, 0:columns]
    blobs = (x * x // 97 + y * y // 61 + x * y // 131) % 256
    grey: NDArray[np.float32] = ((blobs + (x * 37 + y * 101) % 64) % 256).astype(np.float32) / np.float32(255)
    beside = tuple(np.roll(grey, 7 * plane, axis=0) for plane in range(1, task.example_shape[0]))
    return Picture(grey, ((columns // 10, rows // 12, columns - 7, rows - 5),), (0.2, 0.25), beside=beside)


def _scan(task: Task, slices: int, rows: int, columns: int) -> Scan:
    """The same in every sequence, in space, with a ball in the middle for every structure."""
    z, y, x = np.mgrid[0:slices, 0:rows, 0:columns]
    values = ((z * z * 7 + x * x // 5 + y * y // 3 + x * y // 11 + z * 31) % 256).astype(np.float32) * 4 - 700
    ball = (z - slices // 2) ** 2 * 9 + (y - rows // 2) ** 2 + (x - columns // 2) ** 2 < (rows // 5) ** 2
    affine = np.diag([3.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]].astype(np.float64)  # slices along z, rows along y
    volumes = {sequence.name: Volume(values, affine) for sequence in task.sequences}
    return Scan(volumes, {structure.name: Volume(ball, affine) for structure in task.structures})


def head_text(head: ModelHead) -> Mapping[str, object]:
    """The header in words for a person."""
    return {
        "study": head.study,
        "task": f"{head.task}, version {head.task_version}",
        "network": head.model.get("name"),
        "release": head.release,
        "operating threshold": "none" if head.threshold is None else f"{head.threshold:.3f}",
        "calibration": "none: scores are no probabilities"
        if head.calibration is None
        else (f"intercept {head.calibration.intercept:.2f}, slope {head.calibration.slope:.2f}"),
        "study's own gate": {None: "not set", True: "passed", False: "not passed"}[head.accepted],
    }
