"""An ONNX model that was checked: from a tile of channels to a tile of probability.

The file is read once, and what was read is both hashed and run. Everything that can be wrong
with a model is looked for when it is loaded, down to a trial with made-up values, so that it
is not found out after an hour of preprocessing.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbprep.detectors.contract import NetworkContract, read_contract
from cmbprep.errors import CmbprepError, ScanError, UsageError
from cmbprep.models import onnx_session

#: Tile where neither the model nor the contract says, by number of spatial axes.
DEFAULT_TILE = {2: 256, 3: 64}
#: Tiles of models without a fixed size are cut to multiples of this: networks that halve
#: their input up to four times need it.
TILE_STEP = 16
# Outputs this far outside of 0..1 are no probabilities.
_SLACK = 1e-3
_PAGE = "see the page on your own network in the documentation"

FloatArray = NDArray[np.float32]


class OnnxModel:
    """A user's network, loaded and tried.

    Parameters
    ----------
    path
        The ONNX file, with its weights inside.

    Attributes
    ----------
    sha256
        Of the file.
    contract
        What the network expects and gives.
    ndim
        3, or 2 for a network of slices.
    fixed_tile
        Tile size along each axis; None where it follows the image.
    channel
        Channel of the output that is microbleed.

    Raises
    ------
    UsageError
        If it cannot be used; the message says why and what to do.
    """

    def __init__(self, path: Path) -> None:
        content = _read_file(path)
        self.path = path
        self._tried = False
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session = _start(content, path)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.contract: NetworkContract = read_contract(path, metadata)
        self._input, sizes = self._check_input()
        self._output = self._check_output()
        self.ndim = len(sizes)
        self.fixed_tile = self._check_patch(sizes)
        self.channel = self._try()
        self._tried = True

    def tile(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Tile size for an image of a shape (2 or 3 axes, as the network has)."""
        return tuple(
            size or min(DEFAULT_TILE[self.ndim], -(-n // TILE_STEP) * TILE_STEP)
            for size, n in zip(self.fixed_tile, shape, strict=True)
        )

    def predict(self, channels: FloatArray) -> FloatArray:
        """Probability of microbleed in one tile.

        Parameters
        ----------
        channels
            (C, x, y[, z]) normalised input.

        Returns
        -------
        array of shape (x, y[, z]), in 0..1

        Raises
        ------
        ScanError
            If the output is not a number, or no probability.
        """
        return self._probability(self._run(channels), self.channel)

    def _probability(self, output: FloatArray, channel: int) -> FloatArray:
        """Turn the output (K, ...) for a tile into the probability of microbleed."""
        self._require(
            bool(np.isfinite(output).all()),
            "the network's output holds values that are not finite (NaN or infinite)",
            "look for divisions by zero and overflow in the network, and check that the "
            f"normalisation is the one that it was trained with; {_PAGE}",
        )
        if self.contract.activation == "softmax":
            shifted = np.exp(output - output.max(axis=0, keepdims=True))
            return np.asarray(shifted[channel] / shifted.sum(axis=0), np.float32)
        chosen = output[channel]
        if self.contract.activation == "sigmoid":
            # Both signs without overflow.
            small = np.exp(-np.abs(chosen))
            return np.where(chosen >= 0, 1, small).astype(np.float32) / (1 + small)
        low, high = float(chosen.min()), float(chosen.max())
        self._require(
            low >= -_SLACK and high <= 1 + _SLACK,
            f"the network's output is no probability: it goes from {low:.3g} to {high:.3g}",
            "set cmbprep.activation to sigmoid or softmax, or export the network with its "
            f"last activation; {_PAGE}",
        )
        return np.clip(chosen, 0, 1)

    # --- checks ------------------------------------------------------------------------

    def _check_input(self) -> tuple[str, list[int | None]]:
        inputs = self._session.get_inputs()
        names = ", ".join(item.name for item in inputs) or "none"
        self._require(
            len(inputs) == 1,
            f"the network has {len(inputs)} inputs ({names}) where one is needed",
            f"export it with one input whose channels are the images; {_PAGE}",
        )
        (given,) = inputs
        self._require(
            given.type == "tensor(float)",
            f"the network's input is {given.type}, not tensor(float)",
            "export it in single precision (float32)",
        )
        # Axes of a size that is not fixed have a name or nothing in the place of the number.
        shape = [size if isinstance(size, int) and size > 0 else None for size in given.shape]
        self._require(
            len(shape) in (4, 5),
            f"the network's input has {len(shape)} axes {given.shape}",
            "it must have the axes (1, channel, x, y, z), or (1, channel, x, y) for a "
            "network of slices",
        )
        batch, count, *sizes = shape
        self._require(
            batch in (None, 1),
            f"the network takes {batch} images at a time",
            "export it for a batch of 1",
        )
        channels = self.contract.channels
        self._require(
            count in (None, len(channels)),
            f"the network's input has {count} channels, but cmbprep.channels names "
            f"{len(channels)} ({', '.join(channels)})",
            f"name one image for each channel in cmbprep.channels; {_PAGE}",
        )
        return given.name, sizes

    def _check_output(self) -> str:
        names = [str(item.name) for item in self._session.get_outputs()]
        self._require(
            len(names) == 1,
            f"the network has {len(names)} outputs ({', '.join(names)}) where one is needed",
            "export the map of microbleeds as its only output (without deep supervision)",
        )
        return names[0]

    def _check_patch(self, sizes: list[int | None]) -> tuple[int | None, ...]:
        """Tile size along each axis where it is fixed, by the model or by the contract."""
        patch = self.contract.patch
        if patch is None:
            return tuple(sizes)
        self._require(
            len(patch) == len(sizes),
            f"cmbprep.patch gives {len(patch)} sizes for a network with {len(sizes)} axes in space",
            "give one for each axis",
        )
        for size, fixed in zip(patch, sizes, strict=True):
            self._require(
                fixed in (None, size),
                f"cmbprep.patch asks for {size} voxels along an axis where the network "
                f"takes {fixed} only",
                "leave cmbprep.patch out, or export the network without fixed sizes",
            )
        return patch

    def _try(self) -> int:
        """Run made-up values; give the channel of the output that is microbleed."""
        tile = self.tile((4096,) * self.ndim)
        rng = np.random.default_rng(0)
        trial = rng.standard_normal((len(self.contract.channels), *tile), dtype=np.float32)
        output = self._run(trial)
        channel = self._choose_channel(output.shape[0])
        self._probability(output, channel)
        return channel

    def _choose_channel(self, count: int) -> int:
        chosen = self.contract.output_channel
        self._require(
            self.contract.activation != "softmax" or count > 1,
            "softmax over an output of one channel is always 1",
            "set cmbprep.activation to sigmoid",
        )
        self._require(
            chosen is not None or count <= 2,
            f"the network's output has {count} channels",
            "say in cmbprep.output_channel which one is microbleed, counted from 0",
        )
        self._require(
            chosen is None or chosen < count,
            f"cmbprep.output_channel is {chosen}, but the output has {count} channels",
            "channels count from 0",
        )
        return count - 1 if chosen is None else chosen

    def _run(self, channels: FloatArray) -> FloatArray:
        """Run the network on one tile; give its output without the first axis, checked."""
        try:
            (output,) = self._session.run([self._output], {self._input: channels[None]})
        except _runtime_errors() as error:
            raise self._error(
                f"ONNX Runtime cannot run the network on an input of shape "
                f"{(1, *channels.shape)} ({_first_line(error)})",
                "check that cmbprep.patch and cmbprep.channels fit the network, and that it "
                "runs with onnxruntime on a processor",
            ) from error
        output = np.asarray(output)
        self._require(
            output.ndim >= 2 and (output.shape[0], *output.shape[2:]) == (1, *channels.shape[1:]),
            f"the network's output has the shape {output.shape} for an input of shape "
            f"{(1, *channels.shape)}",
            "it must be voxel-wise: (1, K, ...) with the same size in space as the input",
        )
        return output[0].astype(np.float32, copy=False)

    def _require(self, holds: bool, message: str, hint: str) -> None:
        if not holds:
            raise self._error(message, hint)

    def _error(self, message: str, hint: str) -> CmbprepError:
        if not self._tried:
            return UsageError(message, path=self.path, hint=hint)
        # Records of failed scans name no folders of this machine.
        return ScanError(message, path=self.path.name, hint=hint)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            "there is no such file", path=path, hint="check the path given to --detector"
        ) from None
    except OSError as error:
        raise UsageError(
            f"the model cannot be read ({error.strerror})",
            path=path,
            hint="check the path given to --detector and the file's permissions",
        ) from error


def _start(content: bytes, path: Path) -> Any:
    """Load the network, or say why it cannot be loaded."""
    import onnxruntime

    try:
        return onnx_session(content)
    except _runtime_errors() as error:
        text, version = str(error), onnxruntime.__version__
        message = f"ONNX Runtime {version} cannot run this model ({_first_line(error)})"
        hint = "export it again with standard operators and an opset that this version knows"
        if "External data" in text:
            message = "the model keeps its weights in another file"
            hint = (
                "save it as one file (torch.onnx.export(..., external_data=False), or "
                "onnx.save with save_as_external_data=False)"
            )
        elif "protobuf parsing failed" in text or "No graph was found" in text:
            message = "this is not an ONNX model, or it is damaged"
            hint = "export the network as ONNX (torch.onnx.export), or copy the file again"
        raise UsageError(message, path=path, hint=hint) from error


@cache
def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its errors have no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = (kind for kind in vars(state).values() if isinstance(kind, type))
    return (*(kind for kind in kinds if issubclass(kind, Exception)), RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    """What went wrong, without the numbers that ONNX Runtime puts in front."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.rpartition("] : ")[2].strip().rstrip(".")[:300]
