"""Writes a fitted network as ONNX (PyTorch; training only)."""

from __future__ import annotations

import io

import torch

from ..algorithms.patches import ACROSS_SHAPE, NEAR_SHAPE, WIDE_SHAPE
from ..detectors.views import COLUMNS
from .network import Ensemble

__all__ = ["to_onnx"]


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
    return buffer.getvalue()
