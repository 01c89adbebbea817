"""Small ONNX graphs, good and bad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str]
WEIGHT = np.random.RandomState(0).standard_normal((8, 3, 3, 3)).astype(np.float32)


def graph(
    nodes: Sequence[Any] | None = None,
    *,
    values: dict[str, NDArray[Any]] | None = None,
    image: Shape = (1, 3, 16, 16),
    outputs: Sequence[str] = ("y",),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A graph of these nodes; by default one convolution, whose maps are the answer."""
    made = helper.make_graph(
        list(nodes) if nodes is not None else [helper.make_node("Conv", ["x", "w"], ["y"])],
        "encoder",
        [helper.make_tensor_value_info("x", kind, list(image))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in ({"w": WEIGHT} if values is None else values).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def node(kind: str, into: Sequence[str], out: Sequence[str], **more: Any) -> Any:
    """One node."""
    return helper.make_node(kind, list(into), list(out), **more)
