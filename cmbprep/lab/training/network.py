"""The network that tells microbleeds from what looks like them (PyTorch; training only).

Flat convolutions on the views of a candidate, planes as channels: on a laptop's processor
they cost a tenth of three-dimensional ones. Layers that are skipped (He et al. 2016,
doi:10.1109/CVPR.2016.90) give them depth. The two views across the slices share their weights
and are summed, so that which of them comes first does not matter. Features and views meet in
two dense layers that give three classes: nothing, microbleed, calcification.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from cmbprep.detectors.patches import ACROSS_SHAPE, NEAR_SHAPE, WIDE_SHAPE
from cmbprep.detectors.views import COLUMNS
from cmbprep.lab.training.symmetry import ACROSS_BESIDE, NEAR_THROUGH, WIDE_THROUGH

# Part of the features that dense layers do without in a step: with 0.3 the fit stayed as far from
# what it was shown as from people left out.
_DROPPED = 0.1


def _block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class _Residual(nn.Module):
    """Two convolutions whose result is added to what goes in; at first it adds nothing.

    Parameters
    ----------
    channels
        Of the input and the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.BatchNorm2d(channels)
        nn.init.zeros_(last.weight)
        self.added = nn.Sequential(
            *_block(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            last,
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return torch.relu(maps + self.added(maps))


class _Centre(nn.Module):
    """Mean over the view beside the mean over its middle, where the candidate is.

    Parameters
    ----------
    rows, columns
        Places left out at each end for the middle.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.middle = (slice(rows, -rows), slice(columns, -columns))

    def forward(self, maps: Tensor) -> Tensor:
        """Return (n, 2 * channels) of maps (n, channels, rows, columns)."""
        middle = maps[:, :, *self.middle]
        return torch.cat([maps.mean(dim=(2, 3)), middle.mean(dim=(2, 3))], dim=1)


class CandidateNetwork(nn.Module):
    """Views and description of candidates -> logits of three classes.

    Parameters
    ----------
    columns
        Number of values that describe a candidate.
    width
        Channels of the first layers.
    """

    def __init__(self, columns: int, width: int = 24) -> None:
        super().__init__()
        w = width
        self.near = nn.Sequential(
            *_block(NEAR_SHAPE[0], w),
            *_block(w, 2 * w, 2),
            _Residual(2 * w),
            *_block(2 * w, 3 * w, 2),
            _Residual(3 * w),
            _Centre(2, 2),
        )
        self.across = nn.Sequential(
            *_block(ACROSS_SHAPE[1], w),
            *_block(w, 2 * w, 2),
            _Residual(2 * w),
            *_block(2 * w, 2 * w, 2),
            _Residual(2 * w),
            _Centre(2, 1),
        )
        self.wide = nn.Sequential(
            *_block(WIDE_SHAPE[0], w, 2),
            *_block(w, 2 * w, 2),
            _Residual(2 * w),
            _Centre(2, 2),
        )
        self.register_buffer("centre", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.described = nn.Sequential(
            nn.Linear(columns, 2 * w),
            nn.ReLU(inplace=True),
            nn.Linear(2 * w, 2 * w),
            nn.ReLU(inplace=True),
        )
        joined = 2 * (3 * w + 2 * w + 2 * w) + 2 * w
        self.head = nn.Sequential(
            nn.Dropout(_DROPPED),
            nn.Linear(joined, 4 * w),
            nn.ReLU(inplace=True),
            nn.Dropout(_DROPPED),
            nn.Linear(4 * w, 3),
        )

    def forward(self, near: Tensor, across: Tensor, wide: Tensor, table: Tensor) -> Tensor:
        """Return logits (n, 3) of nothing, microbleed, calcification."""
        side = self.across(across[:, 0]) + self.across(across[:, 1])
        scaled = torch.clamp((table - self.centre) / self.scale, -4, 4)
        parts = [self.near(near), side, self.wide(wide), self.described(scaled)]
        logits: Tensor = self.head(torch.cat(parts, dim=1))
        return logits


class Ensemble(nn.Module):
    """Mean of the logits of networks that differ in their first weights and order of samples.

    Each looks twice: at the views as they are, and reflected in the candidate. A point reflection
    leaves a dipole field as it is, so that both show the same thing, and what the networks
    make of it differs by chance only.

    Parameters
    ----------
    members
        The networks.
    """

    def __init__(self, members: Iterable[CandidateNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, near: Tensor, across: Tensor, wide: Tensor, table: Tensor) -> Tensor:
        """Return logits (n, 3) of nothing, microbleed, calcification."""
        turned = _reflected(near, across, wide)
        found = [member(near, across, wide, table) for member in self.members]
        found += [member(*turned, table) for member in self.members]
        return torch.stack(found).mean(dim=0)


def _reflected(near: Tensor, across: Tensor, wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views reflected in their middle: all three axes mirrored."""
    return (
        near[:, list(NEAR_THROUGH)].flip(2, 3),
        across[:, :, list(ACROSS_BESIDE)].flip(3, 4),
        wide[:, list(WIDE_THROUGH)].flip(2, 3),
    )


# --- Writes a fitted network as ONNX (PyTorch; training only) ------------------------------------


# Arrays smaller than this (scales, offsets) stay as they are.
_SMALL = 256


def to_onnx(network: Ensemble) -> bytes:
    """Return the network as an ONNX file whose number of candidates is free."""
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
