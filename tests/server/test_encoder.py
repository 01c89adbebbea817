"""``consilium encoder``: what a file is, the file that it becomes, and everything that is refused in words."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save, save_file
from torch import Tensor

from server import commands
from server.encoder import DescribedEncoder, EncoderRefused, Wanted, describe, lines
from tasks import task as tasks
from tasks.models import registry
from tasks.models.encoders import encoder_file, random_images
from tasks.models.scatter import ScatterFeatures
from tests.tasks.models.encoders.graphs import graph, node
from tests.tasks.models.encoders.published import VisionConvNeXt, VisionViT, unsettled

TENSORS = {name: tensor.clone() for name, tensor in unsettled(VisionConvNeXt()).state_dict().items()}
TASK = "pneumonia_xray"


def draw(task: str, number: int) -> Tensor:
    """In place of phantoms, which take seconds."""
    assert task == TASK
    return random_images.drawn(number, (28, 28), seed=7)


def told(file: Path, out: Path | None = None, **wanted: object) -> DescribedEncoder:
    return describe(file, Wanted(**wanted), out, draw)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "published.safetensors"
    save_file(TENSORS, path)
    return path


def test_a_file_that_can_be_used_is_described_and_left_alone(file: Path) -> None:
    before = file.read_bytes()
    found = told(file)
    assert (found.path, found.written, found.digest) == (file, False, hashlib.sha256(before).hexdigest())
    shown = dict(lines(found))
    assert shown["layout"] == "torchvision ConvNeXt"
    assert shown["inputs"] == "images, 3 channels, 224 along each axis"
    assert shown["outputs"].startswith("32 features, ")
    assert "ask its publisher" in shown["licence"]
    assert shown["SHA-256"] == found.digest
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("within", ["", "state_dict", "model"])
def test_tensors_that_pytorch_has_written_become_safetensors_without_their_head(within: str, tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    torch.save({within: OrderedDict(TENSORS), "epoch": 3} if within else TENSORS, path)
    found = told(path, facts={"licence": "BSD-3-Clause"})
    assert found.path == tmp_path / "published.encoder.safetensors"
    again = encoder_file.unpacked(found.path.read_bytes())
    assert again.facts.licence == "BSD-3-Clause"
    assert again.facts.source == hashlib.sha256(path.read_bytes()).hexdigest()
    image = torch.rand(1, 1, 28, 28)
    torch.testing.assert_close(again.encode(image), encoder_file.unpacked(save(TENSORS)).encode(image), rtol=0, atol=0)


class Runs:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it has run",)


def test_nothing_but_tensors_is_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": TENSORS, "more": Runs()}, path)
    with pytest.raises(EncoderRefused, match=r"holds more than tensors.*is not opened"):
        told(path)
    assert "it has run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "wanted", "message"),
    [
        ("a.pth", b"no pickle", {}, "holds more than tensors, or is damaged"),
        ("a.safetensors", b"{}", {}, "neither safetensors nor ONNX"),
        ("a.onnx", graph(image=(1, 3, "h", "w")).SerializeToString(), {}, "dynamic sizes .*--side 224"),
        ("a.safetensors", save({"x.weight": torch.zeros(2)}), {}, "Layouts that can be read: .*exported as ONNX"),
        ("a.safetensors", save(TENSORS), {"facts": {"side": -1}}, "side"),
        ("a.safetensors", save(TENSORS), {"facts": {"mean": [0.1, 0.2]}}, "mean and std of 2, 3"),
        ("a.safetensors", save(TENSORS), {"directions": "noise"}, "needs --task"),
        ("a.safetensors", save(TENSORS), {"directions": "noise", "task": "none_such"}, "none_such"),
        ("a.safetensors", save(TENSORS), {"directions": "noise", "task": "lung_ct"}, "2 axes and lung_ct has 3"),
        ("a.safetensors", save(TENSORS), {"directions": "noise", "task": TASK, "images": 5}, "use 32 or more"),
        ("a.safetensors", save(TENSORS), {"directions": "nowhere", "task": TASK}, "has 0 pictures"),
    ],
)
def test_what_cannot_be_used_is_told(
    name: str, content: bytes, wanted: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EncoderRefused, match=message):
        told(path, **wanted)
    with pytest.raises(EncoderRefused, match="cannot be read"):
        told(tmp_path / "missing.onnx")
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_graph_gets_sizes_and_output_by_its_head(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    nodes = [node("Conv", ["x", "w"], ["maps"]), node("Relu", ["maps"], ["features"])]
    onnx.save_model(graph(nodes, image=("n", 3, "h", "w"), outputs=("maps", "features")), path)
    found = told(path, facts={"side": 24, "output": "features", "mean": [0.5], "std": [0.25]})
    assert found.path.name == "graph.encoder.safetensors"
    again = encoder_file.unpacked(found.path.read_bytes())
    assert (again.facts.side, again.facts.mean, again.features) == (24, [0.5] * 3, 8)
    assert told(found.path).written is False


@pytest.mark.parametrize("source", ["noise", "phantoms", "folder", "noise phantoms"])
def test_directions_come_from_images_that_are_no_hospitals(source: str, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    folder.mkdir()
    for number, picture in enumerate(random_images.drawn(34, (40, 30), seed=9).numpy()):
        Image.fromarray((picture[0] * 255).astype(np.uint8)).save(folder / f"{number}.png")
    named = [str(folder) if one == "folder" else one for one in source.split()]
    found = told(file, directions=named, task=TASK, images=34)
    directions = encoder_file.unpacked(found.path.read_bytes()).directions
    assert directions is not None
    assert directions.axes.shape[0] == 32
    assert directions.axes.shape[1] >= 25
    assert str(tmp_path) not in directions.told
    for one in source.split():
        assert {"noise": "random processes", "phantoms": f"phantoms of {TASK}", "folder": "folder public"}[
            one
        ] in directions.told


def test_the_command_tells_and_returns(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "Console", lambda **more: Console(width=200, **more))
    assert commands.main(["encoder", str(file)], draw) == 0
    assert "torchvision ConvNeXt" in capsys.readouterr().out
    bad = file.with_name("bad.safetensors")
    save_file({name: t.clone() for name, t in VisionViT().state_dict().items() if "ln_1" not in name}, bad)
    assert commands.main(["encoder", str(bad)], draw) == 2
    shown = capsys.readouterr().out
    assert "EncoderRefused" in shown
    assert "blocks.0.norm1.bias is missing" in shown
    assert (
        commands.main(
            ["encoder", str(file), "--directions", "noise", "phantoms", "--task", TASK, "--images", "40"], draw
        )
        == 0
    )


def test_phantoms_are_drawn_as_a_hospital_sees_them() -> None:
    from server.__main__ import phantom_examples

    images = phantom_examples("breast_ultrasound", 6)
    assert images.shape == (6, 1, 128, 128)
    assert 0 <= float(images.min()) < float(images.max()) <= 1


@pytest.mark.parametrize("task", ["pneumonia_xray", "lung_ct"])
def test_scattering_needs_no_file_and_its_directions_are_a_small_one(task: str, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    options = (28, 2, 2, 2) if task == "pneumonia_xray" else (16, 2, 3, 2)
    wanted = Wanted(directions=["noise"], task=task, images=36, scattering=options)
    found = describe(Path("scattering"), wanted, out, draw)
    again = encoder_file.unpacked(out.read_bytes())
    assert found.size < 400_000
    assert again.directions is not None
    form = tasks.get(task).form
    image = random_images.drawn(1, form.shape[1:], seed=3)
    network = registry.build(
        {"name": "encoder", "weights": found.digest, "directions": 4, "pool": 0},
        form,
        find=lambda wanted: out.read_bytes(),
    )
    assert network.features is not None
    made = network.features(image.expand(-1, *form.shape))
    assert made.shape == (1, 4)
    resolution, J, L, pool = options
    whole = ScatterFeatures(shape=(1, *form.shape[1:]), resolution=resolution, J=J, L=L, pool=pool)(image)
    torch.testing.assert_close(made, again.directions.along(whole, 4))


@pytest.mark.parametrize(
    ("options", "told"), [((28, 9, 2, 2), "scattering"), ((28, 2, 2), "must be resolution, J, L, pool")]
)
def test_scattering_of_other_options_is_refused(options: tuple[int, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderRefused, match=told):
        describe(Path("scattering"), Wanted(task=TASK, scattering=options), tmp_path / "x.safetensors", draw)
