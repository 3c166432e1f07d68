"""Writes a fitted brain-mask network as ONNX, and reads it back (PyTorch; training only)."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import nn

from ..algorithms.brain_extraction import MULTIPLE
from .brain_network import BrainNetwork
from .export import half_weights

__all__ = ["brain_from_onnx", "brain_to_onnx"]


def brain_to_onnx(network: BrainNetwork) -> bytes:
    """Give the network as an ONNX file whose sizes in space are free."""
    network = network.to("cpu").to(memory_format=torch.contiguous_format).eval()
    example = torch.zeros(1, 2, 2 * MULTIPLE, 3 * MULTIPLE, 2 * MULTIPLE)
    axes = {2: "x", 3: "y", 4: "z"}
    buffer = io.BytesIO()
    torch.onnx.export(
        network,
        (example,),
        buffer,
        input_names=["channels"],
        output_names=["logits"],
        dynamic_axes={"channels": axes, "logits": axes},
        opset_version=17,
        dynamo=False,
    )
    return half_weights(buffer.getvalue())


def brain_from_onnx(content: bytes) -> BrainNetwork:
    """Give the network that :func:`brain_to_onnx` wrote; weights are as they were stored.

    Raises
    ------
    ValueError
        If it is another network.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(content).graph
    stored = {
        weight.name.removesuffix(".half"): numpy_helper.to_array(weight)
        for weight in graph.initializer
    }
    # The export names the scales and offsets of normalisations by their place alone, and they
    # come in the order in which they are used.
    scales = [name for name in stored if name.startswith("onnx::Mul_")]
    offsets = [name for name in stored if name.startswith("onnx::Add_")]
    network = BrainNetwork()
    norms = [name for name, part in network.named_modules() if isinstance(part, nn.GroupNorm)]
    if len(scales) != len(norms) or len(offsets) != len(norms):
        raise ValueError("the model is another network than the one to fit")
    for norm, scale, offset in zip(norms, scales, offsets, strict=True):
        stored[f"{norm}.weight"] = stored[scale].ravel()
        stored[f"{norm}.bias"] = stored[offset].ravel()
    weights = {}
    for name, value in network.state_dict().items():
        if name not in stored or stored[name].shape != tuple(value.shape):
            raise ValueError("the model is another network than the one to fit")
        weights[name] = torch.from_numpy(stored[name].astype(np.float32))
    network.load_state_dict(weights)
    return network
