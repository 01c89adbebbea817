"""A graph is run as it is, and one that could do anything but compute features of one image is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from tasks.models.encoders import graph as graphs
from tasks.models.encoders.facts import Facts
from tasks.models.encoders.graph import BadGraph
from tests.tasks.models.encoders.graphs import WEIGHT, graph, node

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def refused(model: onnx.ModelProto, facts: Facts | None = None) -> str:
    with pytest.raises(BadGraph) as told:
        graphs.read(model.SerializeToString(), facts)[1](IMAGES[:1])
    return str(told.value)


def facts(side: int = 16, output: str = "", channels: int = 3) -> Facts:
    return Facts("onnx", side, [0.0] * channels, [1.0] * channels, output=output)


def test_maps_are_averaged_over_space_and_images_come_one_by_one() -> None:
    found, run, channels, axes = graphs.read(graph().SerializeToString(), None)
    assert (found.side, channels, axes) == (16, 3, 2)
    expected = functional.conv2d(IMAGES, torch.from_numpy(WEIGHT)).mean(dim=(2, 3))
    torch.testing.assert_close(run(IMAGES), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(IMAGES)[1:], run(IMAGES[1:]), rtol=0, atol=0)


def test_of_tokens_the_first_is_taken() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["maps"]),
        node("Reshape", ["maps", "rows"], ["flat"]),
        node("Transpose", ["flat"], ["y"], perm=[0, 2, 1]),
    ]
    run = graphs.read(graph(nodes, values={"w": WEIGHT, "rows": np.array([1, 8, -1])}).SerializeToString(), None)[1]
    expected = functional.conv2d(IMAGES, torch.from_numpy(WEIGHT))[:, :, 0, 0]
    torch.testing.assert_close(run(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_a_volume_has_three_axes() -> None:
    values = {"w": np.ones((4, 1, 3, 3, 3), np.float32)}
    found, run, channels, axes = graphs.read(graph(values=values, image=(1, 1, 8, 8, 8)).SerializeToString(), None)
    assert (channels, axes, found.mean, found.std) == (1, 3, [0.0], [1.0])
    assert run(torch.ones(1, 1, 8, 8, 8)).tolist() == [[27.0] * 4]


def test_dynamic_sizes_are_told_and_then_they_are_those_of_the_head() -> None:
    dynamic = graph(image=("batch", 3, "rows", "columns"))
    text = refused(dynamic)
    assert "dynamic sizes (batch, 3, rows, columns)" in text
    assert "--side 224" in text
    run = graphs.read(dynamic.SerializeToString(), facts())[1]
    assert run(IMAGES).shape == (2, 8)


def test_of_several_outputs_one_must_be_named() -> None:
    nodes = [node("Conv", ["x", "w"], ["hidden"]), node("Relu", ["hidden"], ["pooled"])]
    model = graph(nodes, outputs=("hidden", "pooled"))
    text = refused(model)
    assert "2 outputs (hidden, pooled)" in text
    assert "--output NAME" in text
    run = graphs.read(model.SerializeToString(), facts(output="pooled"))[1]
    expected = functional.conv2d(IMAGES, torch.from_numpy(WEIGHT)).relu().mean(dim=(2, 3))
    torch.testing.assert_close(run(IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert "it has no output 'last'; it has hidden, pooled" in refused(model, facts(output="last"))


@pytest.mark.parametrize("kind", ["Loop", "If", "Scan", "RandomNormalLike", "Bernoulli", "SequenceEmpty", "Invented"])
def test_operators_that_do_more_than_compute_are_refused_by_name(kind: str) -> None:
    assert f"operators that are not run here: {kind}" in refused(graph([node(kind, ["x"], ["y"])], values={}))


def test_operators_of_another_domain_are_refused_by_name() -> None:
    model = graph([node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft")])
    assert "com.microsoft.FusedConv" in refused(model)


def test_operators_inside_a_function_of_the_graph_are_looked_at() -> None:
    model = graph([node("Own", ["x"], ["y"], domain="own")], values={})
    body = [node("RandomUniformLike", ["a"], ["b"])]
    function = helper.make_function("own", "Own", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model.functions.append(function)
    assert "RandomUniformLike" in refused(model)


@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_nothing_outside_the_file_is_read(where: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8 * 27 * 4))
    tensor = numpy_helper.from_array(WEIGHT, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(secret))
    if where == "initializer":
        model = graph(values={})
        model.graph.initializer.append(tensor)
    else:
        model = graph([node("Constant", [], ["w"], value=tensor), node("Conv", ["x", "w"], ["y"])], values={})
    text = refused(model)
    assert "1 of its tensors lie in another file (w)" in text
    assert "save_as_external_data=False" in text


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (graph(image=(4, 3, 16, 16)), "takes 4 images at once"),
        (graph(image=(1, 3, 16, 20)), "export it for squares"),
        (graph(image=(1, 3, 16)), "no float32 image"),
        (graph(kind=TensorProto.UINT8), "no float32 image"),
        (graph(image=(1, "channels", 16, 16)), "does not say how many channels"),
        (graph(image=(1, 5, 16, 16)), "shapes do not fit|runtime refuses|cannot run it"),
    ],
    ids=["batch", "not square", "axes", "bytes", "channels", "wrong channels"],
)
def test_an_input_that_is_no_image_is_refused(model: onnx.ModelProto, told: str) -> None:
    assert any(part in refused(model) for part in told.split("|"))


def test_a_second_input_is_refused() -> None:
    model = graph()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    assert "2 inputs (x, mask)" in refused(model)


def test_a_part_for_training_is_refused() -> None:
    model = graph()
    model.training_info.add()
    assert "export it for inference" in refused(model)


@pytest.mark.parametrize("known", [True, False], ids=["before it runs", "while it runs"])
def test_no_more_memory_is_taken_than_a_gigabyte_a_tensor_and_three_in_all(known: bool) -> None:
    sizes = np.array([1100, 3, 512, 512])
    nodes = [node("Expand", ["x", "sizes"], ["large"]), node("ReduceMean", ["large"], ["y"], axes=[0, 2, 3])]
    values = {"sizes": sizes}
    if not known:
        nodes, values = [node("Cast", ["f"], ["sizes"], to=TensorProto.INT64), *nodes], {"f": sizes.astype(np.float32)}
    with pytest.raises(BadGraph, match=r"more than 268435456 values|cannot run it"):
        graphs.read(graph(nodes, values=values, image=(1, 3, 1, 1)).SerializeToString(), None)[1](IMAGES[:1, :, :1, :1])


@pytest.mark.parametrize("content", [b"\x08", b"\x08\x09garbage", b"\x08\x09", b"\x08" + bytes(100)])
def test_what_is_no_graph_is_told(content: bytes) -> None:
    with pytest.raises(BadGraph, match="it is not an ONNX model"):
        graphs.read(content, None)
