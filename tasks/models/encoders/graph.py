"""Encoders as ONNX graphs: a graph is data, but it says what is computed, so it is checked before it is run.

Only operators of the standard that compute a fixed function of numbers are run: no loops or branches, whose time a
graph would decide, nothing that draws at random, no strings, no sequences, no other domain. Nothing outside the file is
read. All sizes are known before the first image, and bound the memory. ``onnxruntime`` runs one image at a time on one
thread, and its telemetry, which its Linux builds do not have, is switched off all the same. The only file that uses
either library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.models.encoders.facts import Facts
from tasks.models.encoders.tensors import Layer

MOST_BYTES = 1 << 30
_MOST_NODES = 20_000
_MOST_VALUES = 1 << 28
"""Of one tensor between two nodes: a gigabyte."""
_MOST_MEMORY = 3 << 30
"""What the runtime may hold beside the graph, in bytes."""
_MOST_SHOWN = 20
_OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant ConstantOfShape
    Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp
    Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization
    LeakyRelu
    Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg Not Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
    Where Xor
    """,
    )
)
_EXTERNAL = 1  # TensorProto.DataLocation
_FLOAT = 1  # TensorProto.DataType


class BadGraph(ValueError):
    """The graph cannot be run, for all the reasons that the text tells."""


def is_graph(content: bytes) -> bool:
    """Whether a file begins like an ONNX model: with its version of the format, field 1 of the message."""
    return content[:1] == b"\x08"


def read(content: bytes, facts: Facts | None) -> tuple[Facts, Layer, int, int]:
    """Check a graph and make it ready.

    Args:
        facts: from the head of a converted file.

    Returns:
        Facts; from float32 (1, channels, ...) to float32 (1, features); channels and axes of its input.

    Raises:
        BadGraph: telling every problem.
    """
    if len(content) > MOST_BYTES:
        raise BadGraph(f"it has {len(content)} bytes, more than {MOST_BYTES}")
    model = _parsed(content)
    problems = [*_unfit(model)]
    taken, sizes = _input(model, facts, problems)
    output = _output(model, facts, problems)
    if problems:
        shown = problems[:_MOST_SHOWN]
        more = f"; and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
        raise BadGraph("; ".join(shown) + more)
    channels, *space = sizes
    facts = facts or Facts("onnx", space[0], *norm_of(channels))
    run = _session(content, model, sizes, taken, output)
    return facts, run, channels, len(space)


def channels_of(content: bytes) -> int:
    """Of its first input; 1 where it does not say.

    Raises:
        BadGraph: it is no graph.
    """
    given = _parsed(content).graph.input
    dims = list(given[0].type.tensor_type.shape.dim) if given else []
    return max(1, dims[1].dim_value) if len(dims) > 1 else 1


def norm_of(channels: int) -> tuple[list[float], list[float]]:
    """A graph does not say what it was trained on: ImageNet's colours, and anything else as it is."""
    if channels == 3:
        return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return [0.0] * channels, [1.0] * channels


def _parsed(content: bytes) -> Any:
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of a library behind the library
        raise BadGraph(f"it is not an ONNX model: {error}") from error
    if not model.graph.node:
        raise BadGraph("it has no nodes: it is not an ONNX model, or an empty one")
    return model


def _unfit(model: Any) -> Iterator[str]:
    nodes = [node for function in model.functions for node in function.node] + list(model.graph.node)
    local = {(function.domain, function.name) for function in model.functions}
    if len(nodes) > _MOST_NODES:
        yield f"it has {len(nodes)} nodes, more than {_MOST_NODES}"
    wrong = sorted({_called(node) for node in nodes if not _known(node) and (node.domain, node.op_type) not in local})
    if wrong:
        yield (
            f"it has operators that are not run here: {', '.join(wrong[:_MOST_SHOWN])}; export it with those of ONNX "
            "alone, for inference, without branches, loops and random numbers"
        )
    if model.training_info:
        yield "it has a part for training; export it for inference"
    outside = [tensor.name or "a constant" for tensor in _tensors(model, nodes) if tensor.data_location == _EXTERNAL]
    if outside:
        yield (
            f"{len(outside)} of its tensors lie in another file ({', '.join(outside[:3])}): save it as one file, "
            "onnx.save_model(model, FILE, save_as_external_data=False)"
        )


def _known(node: Any) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in _OPERATORS


def _called(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _tensors(model: Any, nodes: list[Any]) -> Iterator[Any]:
    yield from model.graph.initializer
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _input(model: Any, facts: Facts | None, problems: list[str]) -> tuple[str, list[int]]:
    """Name of the input, and its channels and sizes."""
    given = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in given]
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        problems.append(f"it has {len(inputs)} inputs ({names}); an encoder has one: the image")
        return "", []
    name, kind = inputs[0].name, inputs[0].type.tensor_type
    batch, *others = [(dim.dim_value if dim.HasField("dim_value") else 0) for dim in kind.shape.dim] or [0]
    if kind.elem_type != _FLOAT or len(others) not in (3, 4):
        problems.append(f"its input {name} is no float32 image (1, channels, rows, columns) or volume with slices")
        return name, []
    if batch not in (0, 1):
        problems.append(f"its input {name} takes {batch} images at once; export it for one")
    channels, *space = others
    side = facts.side if facts else 0
    if channels < 1:
        problems.append(f"its input {name} does not say how many channels it has; export it with fixed sizes")
    elif facts and len(facts.mean) != channels:
        problems.append(f"its input {name} has {channels} channels, and its head says {len(facts.mean)}")
    sizes = [size or side for size in space]
    if not all(sizes):
        problems.append(
            f"its input {name} has dynamic sizes ({_shown(kind)}): say how large the images are, "
            "`consilium encoder FILE --side 224`, or export it with fixed sizes"
        )
    elif len(set(sizes)) > 1 or (side and side != sizes[0]):
        problems.append(f"its input {name} has sizes {sizes}, and images are {side or 'square'}; export it for squares")
    return name, [channels, *sizes]


def _shown(kind: Any) -> str:
    return ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in kind.shape.dim)


def _output(model: Any, facts: Facts | None, problems: list[str]) -> str:
    names = [each.name for each in model.graph.output]
    wanted = facts.output if facts else ""
    if wanted and wanted not in names:
        problems.append(f"it has no output {wanted!r}; it has {', '.join(names)}")
    elif not wanted and len(names) != 1:
        problems.append(
            f"it has {len(names)} outputs ({', '.join(names)}): say which one are the features, "
            "`consilium encoder FILE --output NAME`"
        )
    return wanted or (names[0] if names else "")


def _session(content: bytes, model: Any, sizes: list[int], taken: str, output: str) -> Layer:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", "1")
    for dim, size in zip(_dims(model, taken), (1, *sizes), strict=True):
        if dim.dim_param:
            options.add_free_dimension_override_by_name(dim.dim_param, size)
    _refuse_large(model, taken, sizes)
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common class of their own
        raise BadGraph(f"the runtime refuses it: {str(error)[:300]}") from error

    def run(images: Tensor) -> Tensor:
        """On the processor, where the runtime is, whatever device the images come from and the features go to."""
        try:
            rows = [session.run([output], {taken: image[None].numpy()})[0] for image in images.cpu()]
        except Exception as error:
            raise BadGraph(f"the runtime cannot run it: {str(error)[:300]}") from error
        return torch.from_numpy(np.stack([_features(row) for row in rows])).to(images.device)

    return run


def _dims(model: Any, taken: str) -> Any:
    return next(each for each in model.graph.input if each.name == taken).type.tensor_type.shape.dim


def _features(answer: Any) -> Any:
    """Of one image's answer a vector: maps are averaged over space, and of tokens the first is taken."""
    values = np.asarray(answer, np.float32)
    if values.ndim <= 2:
        return values.reshape(-1)
    return values[0, 0] if values.ndim == 3 else values[0].reshape(values.shape[1], -1).mean(axis=1)


def _refuse_large(model: Any, taken: str, sizes: list[int]) -> None:
    """Refuse a graph that would make a tensor larger than the memory, as far as shapes can be told before it runs."""
    import onnx

    for dim, size in zip(_dims(model, taken), (1, *sizes), strict=True):
        dim.dim_value = size
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        raise BadGraph(f"its shapes do not fit together: {str(error)[:300]}") from error
    large = [
        f"{value.name} {shape}"
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if math.prod(shape := [max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]) > _MOST_VALUES
    ]
    if large:
        raise BadGraph(f"it makes tensors of more than {_MOST_VALUES} values: {', '.join(large[:3])}")


@cache
def _runtime() -> Any:
    """The library, once: what it may allocate is a setting of the process."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(4)
    where = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    limits = onnxruntime.OrtArenaCfg({"max_mem": _MOST_MEMORY, "arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(where, limits)
    return onnxruntime


def run_once(content: bytes, inputs: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first output of a graph of our own for its only input.

    Raises:
        BadGraph: it does not run.
    """
    try:
        session = _runtime().InferenceSession(content, providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    except Exception as error:  # of a library behind the library
        raise BadGraph(f"onnxruntime does not run it: {error}") from error
    return np.asarray(found, dtype=np.float32)
