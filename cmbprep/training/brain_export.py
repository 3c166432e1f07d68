"""Writes a fitted brain-mask network as ONNX (PyTorch; training only)."""

from __future__ import annotations

import io

import torch

from ..algorithms.brain_extraction import MULTIPLE
from .brain_network import BrainNetwork
from .export import half_weights

__all__ = ["brain_to_onnx"]


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
