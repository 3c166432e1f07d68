"""Tiny networks, built in code, whose results are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Axes = Sequence[int | str]
FREE = ("x", "y", "z")


def save_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, NDArray] | None = None,
    *,
    metadata: dict[str, str] | None = None,
    inputs: Sequence[tuple[str, Axes]] = (("input", (1, 1, *FREE)),),
    outputs: Sequence[tuple[str, Axes | None]] = (("output", None),),
    kind: int = TensorProto.FLOAT,
    **how: object,
) -> Path:
    """Write a model of these nodes; free axes are named, fixed ones are numbers."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, kind, list(axes)) for name, axes in inputs],
        [helper.make_tensor_value_info(name, kind, axes) for name, axes in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path, **how)
    return path


def identity(path: Path, metadata: dict[str, str], **how: object) -> Path:
    """The probability is the input as it comes, within 0 and 1."""
    bounds = {"low": np.float32(0), "high": np.float32(1)}
    nodes = [helper.make_node("Clip", ["input", "low", "high"], ["output"])]
    return save_model(path, nodes, bounds, metadata=metadata, **how)


def darkness(path: Path, metadata: dict[str, str], **how: object) -> Path:
    """Probability of dark places: sigmoid(12 * (0.6 - input)), voxel by voxel."""
    constants = {"level": np.float32(0.6), "gain": np.float32(12)}
    nodes = [
        helper.make_node("Sub", ["level", "input"], ["dark"]),
        helper.make_node("Mul", ["dark", "gain"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["output"]),
    ]
    return save_model(path, nodes, constants, metadata=metadata, **how)


def convolution(
    path: Path, weights: NDArray[np.float32], metadata: dict[str, str], **how: object
) -> Path:
    """One convolution with zero padding, (K, C, k, k[, k]), and a sigmoid."""
    half = [size // 2 for size in weights.shape[2:]]
    nodes = [
        helper.make_node("Conv", ["input", "weights"], ["logit"], pads=[*half, *half]),
        helper.make_node("Sigmoid", ["logit"], ["output"]),
    ]
    return save_model(path, nodes, {"weights": weights}, metadata=metadata, **how)
