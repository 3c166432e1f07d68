"""The network that finds the brain (PyTorch; training only).

A U-Net (Ronneberger et al. 2015) that works at 8 mm and coarser, where convolutions cost
little and reach far, with one light layer at the 4 mm of its input, which puts the border
where the image has it.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn
from torch.nn import functional

from cmbprep.brain.network import MULTIPLE
from cmbprep.lab.training.network import half_weights


class _Block(nn.Module):
    """Two convolutions with a way around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(8, outputs, eps=1e-3)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(8, outputs, eps=1e-3)
        self.around = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outputs, ...) of (n, inputs, ...)."""
        y = functional.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        result: Tensor = functional.relu(y + self.around(x))
        return result


class BrainNetwork(nn.Module):
    """Intensities and field of view (n, 2, X, Y, Z) at 4 mm -> log-odds of brain (n, 1, X, Y, Z).

    Sizes are multiples of 16.

    Parameters
    ----------
    widths
        Channels at 8, 16, 32 and 64 mm.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 48, 56, 48)) -> None:
        super().__init__()
        self.stem = nn.Conv3d(2, widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList()
        self.narrow = nn.ModuleList()
        for level, width in enumerate(widths):
            self.down.append(_Block(width, width))
            if level + 1 < len(widths):
                self.narrow.append(nn.Conv3d(width, widths[level + 1], 2, stride=2))
        self.up = nn.ModuleList()
        for level in range(len(widths) - 2, -1, -1):
            self.up.append(_Block(widths[level + 1] + widths[level], widths[level]))
        self.spread = nn.ConvTranspose3d(widths[0], 6, 2, stride=2)
        self.fine = nn.Conv3d(8, 8, 3, padding=1)
        self.head = nn.Conv3d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return log-odds."""
        y = self.stem(x)
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            y = block(y)
            if level < len(self.narrow):
                kept.append(y)
                y = self.narrow[level](y)
        for block in self.up:
            y = functional.interpolate(y, scale_factor=2, mode="nearest")
            y = block(torch.cat([y, kept.pop()], dim=1))
        fine = functional.relu(self.spread(y))
        fine = functional.relu(self.fine(torch.cat([fine, x], dim=1)))
        logits: Tensor = self.head(fine)
        return logits


# --- Writes a fitted brain-mask network as ONNX (PyTorch; training only) -------------------------


def brain_to_onnx(network: BrainNetwork) -> bytes:
    """Return the network as an ONNX file whose sizes in space are free."""
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
