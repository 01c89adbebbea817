"""A study's model for other programs: TorchScript, ONNX, and a MONAI Bundle around the former.

What comes out takes examples as the task's own transform makes them, float32 (images, *``Task.example_shape``), and
gives scores from 0 to 1, float32 (images, findings): fixed part, head and sigmoid in one graph. Before a file is
written, it has computed the model's probe and agreed. It is without Consilium's checks: who uses it must bring the
same transform, and it is not for clinical use.

    MONAI Bundle specification: https://docs.monai.io/en/stable/bundle_intro.html
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from server.errors import StudyError
from tasks.machine.disk import write_whole
from tasks.models import model_file
from tasks.models.encoders import graph
from tasks.models.model_file import ModelHead
from tasks.models.network import Network
from tasks.models.real_scattering import RealScattering
from tasks.models.scatter import ScatterFeatures, filters
from tasks.protocol.study import release
from tasks.task import Task

INPUT, OUTPUT = "image", "score"
_OPSET = 20  # the first with a Fourier transform that takes axes as an input, and all that scattering needs
_USE = "Research only: not a medical device, not for clinical use."


class ScoringGraph(nn.Module):
    """Examples to scores, with nothing in it that only Consilium can run."""

    def __init__(self, task: Task, network: Network) -> None:
        super().__init__()
        self.form, self.features = task.form, network.features
        self.trainable = copy.deepcopy(network.trainable).requires_grad_(False)
        self.scattering: nn.Module | None = None
        if isinstance(network.features, ScatterFeatures):
            fixed = network.features
            self.scattering = RealScattering(filters(fixed.size, fixed.J, fixed.L, 2))

    def forward(self, images: Tensor) -> Tensor:
        """float32: what is told of each question, one behind the other; of yes-or-no questions (images, questions)."""
        kept = images
        if isinstance(self.features, ScatterFeatures) and self.scattering is not None:
            kept = self.features.through(self.scattering, images)
        elif self.features is not None:
            kept = self.features(images)
        return torch.cat(self.form.told(self.trainable(kept)), dim=1)


def write(form: str, to: Path, head: ModelHead, task: Task, network: Network) -> None:
    """Write a model in one of the formats.

    Args:
        form: ``torchscript``, ``onnx`` or ``bundle``.
        to: a file; for a bundle a folder, which must not exist.

    Raises:
        StudyError: the model cannot be expressed in that format, or what was made of it computes something else.
    """
    network.trainable.eval()
    examples = model_file.probe_examples(task)
    content = _onnx(task, network) if form == "onnx" else _torchscript(task, network)
    computed = graph.run_once(content, examples) if form == "onnx" else _run_torchscript(content, examples)
    expected = torch.cat(task.form.told(network.outputs(torch.from_numpy(examples))), dim=1).detach().numpy()
    if computed.shape != expected.shape or not np.allclose(computed, expected, rtol=1e-3, atol=1e-4):
        raise StudyError(f"the model as {form} gives {computed} where it should give {expected}: nothing was written")
    if form == "bundle":
        _bundle(to, content, head, task)
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        write_whole(to, content)


def _torchscript(task: Task, network: Network) -> bytes:
    example = torch.zeros(2, *task.example_shape)
    with torch.no_grad(), warnings.catch_warnings():
        # What the tracer takes as constant is constant: the task's shape.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        _warm(network, example)
        try:
            traced = torch.jit.trace(ScoringGraph(task, network), example, check_trace=False)  # type: ignore[no-untyped-call]
        except (RuntimeError, TypeError, ValueError) as error:
            raise StudyError(f"the network cannot be traced as TorchScript: {_first_line(error)}") from error
    kept = io.BytesIO()
    torch.jit.save(traced, kept)
    return kept.getvalue()


def _onnx(task: Task, network: Network) -> bytes:
    try:
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ImportError:
        raise StudyError(
            "ONNX is written by onnxscript, which is not installed: pip install 'consilium-fl[export]' -c "
            "constraints.txt"
        ) from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of torchvision, which is not needed
    example = torch.rand(2, *task.example_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter's own, on how it copies its tables
        _warm(network, example)
        try:
            program = torch.onnx.export(
                ScoringGraph(task, network).eval(),
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("images")},),
                opset_version=_OPSET,
                optimize=False,  # it takes minutes, and the runtime folds constants itself
                verbose=False,
            )
        except Exception as error:  # of many kinds, from the tracer to the translation of single operators
            raise StudyError(
                f"the network cannot be written as ONNX ({_first_line(error)}); --format torchscript may do"
            ) from error
    assert program is not None
    return cast("bytes", program.model_proto.SerializeToString())


def _warm(network: Network, example: Tensor) -> None:
    """Make what a fixed part makes when its first image comes; it must not become part of the graph."""
    network.outputs(example)


def _run_torchscript(content: bytes, examples: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        scores: Tensor = torch.jit.load(io.BytesIO(content))(torch.from_numpy(examples))  # type: ignore[no-untyped-call]
    return cast("NDArray[np.float32]", scores.numpy())


def _bundle(folder: Path, torchscript: bytes, head: ModelHead, task: Task) -> None:
    """Write a MONAI Bundle. What it is run on are examples, since the transform is Consilium's own."""
    if folder.exists():
        raise StudyError(f"{folder} already exists; an exported model is never overwritten: name another with --out")
    for name, content in {
        "models/model.ts": torchscript,
        "configs/metadata.json": _json(_metadata(head, task)),
        "configs/model.json": _json(_belongs_to(head)),
        "configs/inference.json": _json(_INFERENCE),
        "docs/README.md": _readme(head, task).encode(),
        "deploy/app.py": _APP.read_bytes(),
        "deploy/__main__.py": b"from app import App\n\nApp().run()\n",
        "deploy/app.yaml": _json(_PACKAGE | {"application": _application(head)}),
        "deploy/requirements.txt": f"consilium-fl=={head.release}\n".encode(),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, content)


_APP = Path(__file__).with_name("monai_deploy_app.py.j2")
"""The application that a bundle carries for MONAI Deploy; it runs as it stands, and imports what a hospital has."""
_PACKAGE = {"resources": {"cpu": 1, "memory": "4Gi"}}


def _belongs_to(head: ModelHead) -> dict[str, Any]:
    """What the application needs to know of the model."""
    return {"task": head.task, "task_version": head.task_version, "contract": head.contract,
            "threshold": head.threshold}  # fmt: skip


def _application(head: ModelHead) -> dict[str, Any]:
    """What MONAI Deploy's packager asks of an application; JSON is YAML."""
    return {"title": f"{head.task}, {head.study}. {_USE}", "version": "1.0.0", "inputFormats": ["file"],
            "outputFormats": ["file"]}  # fmt: skip


_INFERENCE = {
    "imports": ["$import csv", "$import glob", "$import numpy", "$import torch"],
    "bundle_root": ".",
    "dataset_dir": "$@bundle_root + '/images'",
    "output_file": "$@bundle_root + '/scores.csv'",
    "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts')",
    "datalist": "$sorted(glob.glob(@dataset_dir + '/*.npy'))",
    "scores": "$[(f, float(@network_def(torch.from_numpy(numpy.load(f)).float()[None])[0, 0])) for f in @datalist]",
    "run": ["$csv.writer(open(@output_file, 'w', newline='')).writerows([('file', 'score'), *@scores])"],
}


def _metadata(head: ModelHead, task: Task) -> dict[str, Any]:
    channels, *space = task.example_shape
    shown = {"type": "image", "format": "magnitude", "num_channels": channels, "spatial_shape": space}
    names = ["positive", *(finding.name for finding in task.secondary_findings)]
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": f"as the study {head.study} has ended"},
        "monai_version": metadata.version("monai"),
        "pytorch_version": torch.__version__,
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "name": f"{head.task}, {head.study}",
        "task": task.question,
        "description": f"Trained by Consilium {head.release} in the study {head.study}, with patient-level privacy as "
        f"its document {head.document} says.",
        "authors": "the hospitals of the study",
        "copyright": "as the hospitals of the study have agreed",
        "intended_use": _USE,
        "consilium": {**model_file.head_text(head), "exported by release": release()},
        "network_data_format": {
            "inputs": {INPUT: {**shown, "dtype": "float32", "value_range": [], "is_patch_data": False}},
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "scores from 0 to 1 of one image",
                    "num_channels": len(names),
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": {str(number): name for number, name in enumerate(names)},
                }
            },
        },
    }


def _readme(head: ModelHead, task: Task) -> str:
    return f"""# {task.question}

{_USE}

`models/model.ts` takes examples as Consilium's task `{head.task}` makes them: float32 of shape (images,
{", ".join(map(str, task.example_shape))}). From a picture:

    from tasks import task as tasks
    from tasks.task import Picture

    example = tasks.get("{head.task}").read_example(Picture(grey))   # grey: float32 (rows, columns) from 0 to 1
    numpy.save("images/1.npy", example)

Then, in this folder: `python -m monai.bundle run --config_file configs/inference.json --bundle_root .` writes
`scores.csv` (MONAI's command line needs `pip install fire`). A patient's score is the mean over the patient's images;
what it means as a probability, and the threshold of the study's report, stand in `configs/metadata.json` under
`consilium`.

`deploy/app.py` scores DICOM files, by itself (`python deploy/app.py IMAGES RESULTS`) or in MONAI Deploy:

    monai-deploy package deploy --config deploy/app.yaml --models . --tag {_image(head)} --platform x86_64
"""


def _image(head: ModelHead) -> str:
    return f"{head.task.replace('_', '-')}:1.0.0"


def _json(facts: Any) -> bytes:
    return (json.dumps(facts, indent=1) + "\n").encode()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
