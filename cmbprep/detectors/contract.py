"""What a user's network expects and gives: read from the model file, or from a JSON beside it.

The contract is a handful of keys. In the ONNX file they are metadata properties that begin
with ``cmbprep.``; in the JSON file (same name, ending ``.json``) that prefix may be left out.
A key of the JSON file wins. The page "Your own network" of the documentation explains them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cmbprep.detectors.normalisation import NORMALISATIONS
from cmbprep.errors import UsageError
from cmbprep.spatial.grids import CONNECTIVITIES
from cmbprep.spatial.orientation import is_orientation

PREFIX = "cmbprep."
CHANNELS = ("magnitude", "magnitude_brain", "brain_mask")
ACTIVATIONS = ("none", "sigmoid", "softmax")
#: Rating ``definite`` from this probability on, where the contract does not say.
_DEFINITE = 0.8


@dataclass(frozen=True, kw_only=True)
class NetworkContract:
    """What a network expects and gives.

    Parameters
    ----------
    spacing_mm
        Voxel sizes that it works at, along the axes of its input; None for the scan's own.
    orientation
        Where the three axes of its input point, as letters of nibabel (``RAS``).
    normalisation, percentiles
        See :func:`cmbprep.detectors.normalisation.normalise`.
    channels
        Names out of :data:`CHANNELS`, in the order of the input's channels.
    patch
        Tile size in voxels, three numbers or two for a network of slices; None for the size
        that the model fixes, or a default.
    overlap
        Part of a tile that it shares with the next one.
    activation
        What turns the output into probabilities: one of :data:`ACTIVATIONS`.
    output_channel
        Which channel of the output is microbleed, from 0; None if there is no choice.
    threshold, definite
        Lowest probability of a lesion's voxels, and of a definite lesion's highest voxel.
    connectivity
        6, 18 or 26: neighbours that make voxels one lesion.
    min_volume_mm3
        Smaller lesions are left out.
    """

    spacing_mm: tuple[float, float, float] | None = None
    orientation: str = "RAS"
    normalisation: str = "zscore-brain"
    percentiles: tuple[float, float] = (1.0, 99.0)
    channels: tuple[str, ...] = ("magnitude",)
    patch: tuple[int, ...] | None = None
    overlap: float = 0.25
    activation: str = "none"
    output_channel: int | None = None
    threshold: float = 0.5
    definite: float | None = None
    connectivity: int = 6
    min_volume_mm3: float = 0.0

    @property
    def parameters(self) -> dict[str, Any]:
        """All values but the operating points, JSON-ready."""
        values = asdict(self)
        del values["threshold"], values["definite"]
        values["spacing_mm"] = "native" if self.spacing_mm is None else list(self.spacing_mm)
        values["patch"] = None if self.patch is None else list(self.patch)
        values["channels"] = ", ".join(self.channels)
        low, high = values.pop("percentiles")
        if self.normalisation == "percentile-brain":
            values["normalisation"] = f"percentile-brain({low:g},{high:g})"
        return values

    def definite_from(self, threshold: float) -> float:
        """Lowest probability of a definite lesion when lesions are listed from ``threshold``."""
        return max(_DEFINITE, threshold) if self.definite is None else self.definite


# --- values ----------------------------------------------------------------------------


def _items(raw: Any) -> list[Any]:
    """Items of a JSON list, or of a text with commas."""
    if isinstance(raw, list):
        return raw
    return [part.strip() for part in raw.split(",")] if isinstance(raw, str) else [raw]


def _number(raw: Any) -> float:
    value = math.nan
    if isinstance(raw, int | float | str) and not isinstance(raw, bool):
        with suppress(ValueError, OverflowError):
            value = float(raw)
    if not math.isfinite(value):
        raise ValueError("a number is needed")
    return value


def _whole(raw: Any) -> int:
    value = _number(raw)
    if value != int(value):
        raise ValueError("a whole number is needed")
    return int(value)


def _checked(
    read: Callable[[Any], Any], fits: Callable[[Any], bool], text: str
) -> Callable[[Any], Any]:
    """Return a reader of a value that refuses, with this text, what does not fit."""

    def reader(raw: Any) -> Any:
        value = read(raw)
        if not fits(value):
            raise ValueError(text)
        return value

    return reader


def _one_of(words: tuple[str, ...]) -> Callable[[Any], str]:
    text = f"it must be one of {', '.join(words)}"
    return _checked(lambda raw: str(raw).strip().lower(), words.__contains__, text)


def _spacing(raw: Any) -> tuple[float, ...] | None:
    if isinstance(raw, str) and raw.strip().lower() == "native":
        return None
    return tuple(map(_number, _items(raw)))


def _normalisation(raw: Any) -> tuple[Any, ...]:
    """Method, and the percentiles where they are given."""
    text = str(raw).strip().lower()
    match = re.fullmatch(r"percentile-brain\s*\(([^,()]+),([^,()]+)\)", text)
    if match is None:
        return (_one_of(NORMALISATIONS)(text),)
    low, high = _number(match[1]), _number(match[2])
    if not 0 <= low < high <= 100:
        raise ValueError("the percentiles must be two numbers from 0 to 100, the lower first")
    return "percentile-brain", (low, high)


_RATIO = _checked(_number, lambda value: 0 < value < 1, "it must lie between 0 and 1")

#: Key -> reader of its value.
_KEYS: dict[str, Callable[[Any], Any]] = {
    "spacing_mm": _checked(
        _spacing,
        lambda sizes: sizes is None or (len(sizes) == 3 and all(0.05 <= s <= 20 for s in sizes)),
        "it must be native, or three voxel sizes from 0.05 to 20 mm",
    ),
    "orientation": _checked(
        lambda raw: str(raw).strip().upper(),
        is_orientation,
        "it must be three letters such as RAS or LPS, one of each pair",
    ),
    "normalisation": _normalisation,
    "channels": lambda raw: tuple(map(_one_of(CHANNELS), _items(raw))),
    "patch": _checked(
        lambda raw: tuple(map(_whole, _items(raw))),
        lambda sizes: len(sizes) in (2, 3) and all(4 <= size <= 4096 for size in sizes),
        "it must be two or three whole numbers from 4 to 4096",
    ),
    "overlap": _checked(
        _number, lambda value: 0 <= value <= 0.75, "it must lie between 0 and 0.75"
    ),
    "activation": _one_of(ACTIVATIONS),
    "output_channel": _checked(_whole, lambda value: value >= 0, "channels count from 0"),
    "threshold": _RATIO,
    "definite": _RATIO,
    "connectivity": _checked(_whole, CONNECTIVITIES.__contains__, "it must be 6, 18 or 26"),
    "min_volume_mm3": _checked(_number, lambda value: value >= 0, "it cannot be negative"),
}
#: All keys, without their prefix.
KEYS = tuple(_KEYS)


# --- reading ---------------------------------------------------------------------------


def read_contract(model: Path, metadata: Mapping[str, str]) -> NetworkContract:
    """Read the contract of a model.

    Parameters
    ----------
    model
        The ONNX file; a file beside it with the ending ``.json`` is read as well.
    metadata
        The metadata properties of the model. Those without the prefix are other programs'.

    Raises
    ------
    UsageError
        If a key is unknown or a value wrong; the message names the file and the key.
    """
    own = {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
    values = _read_values(own, model)
    beside = model.with_suffix(".json")
    if beside.is_file():
        values |= _read_values(_read_beside(beside), beside)
    contract = NetworkContract(**values)
    if contract.definite is not None and contract.definite < contract.threshold:
        raise UsageError(
            f"definite ({contract.definite:g}) is below threshold ({contract.threshold:g})",
            path=beside if beside.is_file() else model,
            hint="lesions are listed from threshold on and definite from definite on; correct "
            "one of them",
        )
    return contract


def _read_beside(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"this file beside the model cannot be read as JSON ({error})",
            path=path,
            hint="correct or remove it",
        ) from error
    if not isinstance(content, dict):
        raise UsageError(
            "this file beside the model holds no JSON object",
            path=path,
            hint='write the keys as an object, for instance {"spacing_mm": [1, 1, 1]}',
        )
    named: dict[str, Any] = {}
    for key, value in content.items():
        short = key.removeprefix(PREFIX)
        if short in named:
            raise UsageError(
                f"the key {short} stands there twice", path=path, hint="leave one of them"
            )
        named[short] = value
    return named


def _read_values(raw: Mapping[str, Any], source: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in _KEYS:
            raise UsageError(
                f"the key {PREFIX}{key} is not known",
                path=source,
                hint=f"remove it; known are {', '.join(KEYS)}",
            )
        try:
            read = _KEYS[key](value)
        except ValueError as error:
            raise UsageError(
                f"the value {value!r} of the key {PREFIX}{key} is wrong: {error}",
                path=source,
                hint="correct it; the page on your own network in the documentation lists all "
                "keys and values",
            ) from None
        pair = ("normalisation", "percentiles")
        values |= dict(zip(pair, read, strict=False)) if key in pair else {key: read}
    return values
