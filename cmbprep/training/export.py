"""Writes a fitted network as ONNX (PyTorch; training only)."""

from __future__ import annotations

import io

import numpy as np
import torch

from ..algorithms.patches import ACROSS_SHAPE, NEAR_SHAPE, WIDE_SHAPE
from ..detectors.views import COLUMNS
from .network import Ensemble

__all__ = ["half_weights", "to_onnx"]

# Arrays smaller than this (scales, offsets) stay as they are.
_SMALL = 256


def to_onnx(network: Ensemble) -> bytes:
    """Give the network as an ONNX file whose number of candidates is free."""
    network = network.to("cpu").eval()
    example = (
        torch.zeros(2, *NEAR_SHAPE),
        torch.zeros(2, *ACROSS_SHAPE),
        torch.zeros(2, *WIDE_SHAPE),
        torch.zeros(2, len(COLUMNS)),
    )
    names = ["near", "across", "wide", "table"]
    buffer = io.BytesIO()
    torch.onnx.export(
        network,
        example,
        buffer,
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "candidates"} for name in [*names, "logits"]},
        opset_version=17,
        dynamo=False,
    )
    return half_weights(buffer.getvalue())


def half_weights(content: bytes) -> bytes:
    """Store the weights of a network in half precision; it still computes in single precision.

    Halves the file. What runs the network turns the weights back once, when it reads them.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_model_from_string(content)
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _SMALL:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
