"""A user's own network as a detector.

The scan is brought to what the network was trained on (axes, voxel size, intensities; see
:mod:`cmbprep.detectors.contract`), predicted tile by tile
(:mod:`cmbprep.detectors.tiling`), and the probability is brought back to the scan's grid.
Lesions are the connected parts of the map at or above the threshold; a lesion's probability
is the highest of its voxels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from cmbprep.detectors.assembly import OperatingPoints, assemble
from cmbprep.detectors.base import Detection, DetectorInput
from cmbprep.detectors.normalisation import normalise
from cmbprep.detectors.onnx_model import OnnxModel
from cmbprep.detectors.scan_warnings import scan_warnings
from cmbprep.detectors.segmentation import measure_region
from cmbprep.detectors.tiling import predict_tiled
from cmbprep.spatial.grids import (
    Grid,
    bounding_box,
    boxed_grid,
    connected_parts,
    resample_to_grid,
    respaced_grid,
)
from cmbprep.spatial.orientation import nearest_axis_order

# Changes when the same network and contract would give another result.
_REVISION = 1
# Room around the brain that the network sees even where tiles do not overlap, voxels.
_LEAST_MARGIN = 8
# Digits of the probability that are kept: the last bits differ between processors.
_DECIMALS = 5
#: More of the brain than this cannot be microbleeds.
_MOST_OF_BRAIN = 0.02
#: More lesions than this are not listed.
MAX_LESIONS = 1000
# Voxels that are resampled by more than this factor are worth a warning.
_FAR_RESAMPLED = 2.0

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


class NetworkDetector:
    """Detector that runs an ONNX model.

    Parameters
    ----------
    path
        The ONNX file.
    threshold
        Lowest probability of a voxel that belongs to a lesion; None for that of the
        contract.

    Raises
    ------
    UsageError
        If the model cannot be used.
    """

    def __init__(self, path: str | Path, threshold: float | None = None) -> None:
        self._model = OnnxModel(Path(path))
        contract = self._model.contract
        listed = contract.threshold if threshold is None else float(threshold)
        self._points = OperatingPoints(listed, contract.definite_from(listed))
        self.name = self._model.path.name

    @property
    def version(self) -> str:
        """Hash of the model, its contract, the thresholds and the revision of this module."""
        text = json.dumps([_REVISION, self._described], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def parameters(self) -> Mapping[str, object]:
        """File name and content hash of the model, its contract, and both thresholds."""
        return {"version": self.version, **self._described}

    @property
    def _described(self) -> dict[str, object]:
        return {
            "kind": "network",
            "model": self.name,
            "model_sha256": self._model.sha256,
            "threshold": self._points.possible,
            "definite": self._points.definite,
            **self._model.contract.parameters,
            # As found in the model, where the contract leaves it open.
            "output_channel": self._model.channel,
        }

    def detect(self, scan: DetectorInput) -> Detection:
        """Find microbleeds in one scan."""
        heat = self._probability(scan)
        contract = self._model.contract
        voxel = abs(float(np.linalg.det(scan.affine[:3, :3])))
        # A hair's breadth, so that a limit that is a multiple of the voxel counts as reached.
        least = max(1, math.ceil(contract.min_volume_mm3 / voxel - 1e-6))
        parts = connected_parts(heat, self._points.possible, contract.connectivity, least)
        warnings = [*scan_warnings(scan), *self._warnings(scan, heat, len(parts))]
        parts = parts[:MAX_LESIONS]
        regions = [
            measure_region(scan.magnitude, scan.brain_mask, scan.affine, voxels, number)
            for number, (_, voxels) in enumerate(parts)
        ]
        # The map holds float32; its decimal digits are meant.
        peaks = [round(peak, _DECIMALS) for peak, _ in parts]
        found = assemble(scan, regions, peaks, self._points, heat=heat)
        return replace(found, warnings=tuple(warnings))

    # --- the probability map -----------------------------------------------------------

    def _probability(self, scan: DetectorInput) -> FloatArray:
        """Probability on the scan's grid, 0 outside the brain."""
        order = nearest_axis_order(scan.affine, self._model.contract.orientation)
        affine = order.affine(scan.affine, scan.magnitude.shape)
        mask = order.apply(scan.brain_mask)
        grid = Grid(mask.shape, affine)
        target = self._target_spacing(grid.spacing)
        margin = np.ceil(self._context() * target / grid.spacing).astype(int)
        box = bounding_box(mask, margin)
        brain = np.ascontiguousarray(mask[box])
        image = np.ascontiguousarray(order.apply(scan.magnitude)[box])
        part = self._on_network_grid(image, brain, boxed_grid(grid, box), target)
        whole = np.zeros(mask.shape, np.float32)
        whole[box] = np.where(brain, part, 0)
        back = order.undo(whole)
        return np.clip(np.round(back, _DECIMALS), 0, 1).astype(np.float32)

    def _target_spacing(self, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
        wanted = self._model.contract.spacing_mm
        if wanted is None or np.allclose(spacing, wanted, rtol=1e-3):
            return spacing
        return np.array(wanted)

    def _context(self) -> NDArray[np.float64]:
        """Voxels of the network's grid that it may see around the brain."""
        tile = self._model.tile((4096,) * self._model.ndim)
        # Half of what tiles share: more than the outer quarter that they do not use.
        common = [max(_LEAST_MARGIN, math.ceil(self._model.contract.overlap * n / 2)) for n in tile]
        # Slices have no neighbours.
        return np.array(common if self._model.ndim == 3 else [max(common)] * 3, float)

    def _on_network_grid(
        self, image: FloatArray, brain: BoolArray, own: Grid, target: NDArray[np.float64]
    ) -> FloatArray:
        """Normalise, bring to the network's voxel size, predict, and bring back."""
        contract, spacing = self._model.contract, own.spacing
        image = normalise(image, brain, spacing, contract.normalisation, contract.percentiles)
        native = bool((target == spacing).all())
        inside = wanted = brain
        if not native:
            grid = respaced_grid(own.shape, own.affine, target)
            image = resample_to_grid(image, own.affine, grid, extend=True)
            share = resample_to_grid(brain, own.affine, grid, extend=True)
            # All points that a voxel of the brain is interpolated from have a share of it.
            inside, wanted = share >= 0.5, share > 0
        images = {
            "magnitude": image,
            "magnitude_brain": np.where(inside, image, np.float32(0)),
            "brain_mask": inside.astype(np.float32),
        }
        stack = np.stack([images[name] for name in contract.channels])
        found = self._predict(stack, wanted, thickest_axis(spacing))
        if native:
            return found
        return resample_to_grid(found, grid.affine, own, extend=True, smooth=False)

    def _predict(self, channels: FloatArray, wanted: BoolArray, slice_axis: int) -> FloatArray:
        model = self._model
        if model.ndim == 3:
            return self._predict_tiles(channels, wanted)
        result = np.zeros(wanted.shape, np.float32)
        slices = np.moveaxis(result, slice_axis, 0)
        for number, where in enumerate(np.moveaxis(wanted, slice_axis, 0)):
            if where.any():
                one = np.take(channels, number, axis=slice_axis + 1)
                slices[number] = self._predict_tiles(one, where)
        return result

    def _predict_tiles(self, channels: FloatArray, wanted: BoolArray) -> FloatArray:
        tile = self._model.tile(wanted.shape)
        overlap = [min(round(self._model.contract.overlap * n), n - 1) for n in tile]
        return predict_tiled(channels, wanted, tile, overlap, self._model.predict)

    # --- doubts ------------------------------------------------------------------------

    def _warnings(self, scan: DetectorInput, heat: FloatArray, count: int) -> list[str]:
        """Return what makes this network's result on this scan doubtful."""
        found = []
        order = nearest_axis_order(scan.affine, self._model.contract.orientation)
        spacing = voxel_sizes(order.affine(scan.affine, scan.magnitude.shape))
        target = self._target_spacing(spacing)
        ratio = spacing / target
        if ratio.max() > _FAR_RESAMPLED or ratio.min() < 1 / _FAR_RESAMPLED:
            sizes = [" x ".join(f"{s:.2f}" for s in each) for each in (spacing, target)]
            found.append(
                f"The network saw voxels of {sizes[1]} mm that were interpolated from {sizes[0]} "
                "mm; it may find less, or other things, than on scans like those of its training."
            )
        share = float(np.mean(heat[scan.brain_mask] >= self._points.possible))
        if share > _MOST_OF_BRAIN:
            found.append(
                f"The network marked {share:.0%} of the brain, which cannot be microbleeds: the "
                "scan, or the contract of the network's input, is not what it was trained with."
            )
        if count > MAX_LESIONS:
            found.append(
                f"The network marked {count} places; the {MAX_LESIONS} most probable are listed."
            )
        return found


def thickest_axis(spacing: NDArray[np.floating]) -> int:
    """Axis across the slices: that of the largest voxel size, the last one of equals."""
    return int(np.flatnonzero(spacing >= 0.99 * spacing.max())[-1])
