"""Nodes that read raw images and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from cmbprep.bids.images import combine_echoes, read_scan_image, require_echo_grid, t1w_warnings
from cmbprep.brain.bias import correct_bias
from cmbprep.interfaces.base import FileInterface
from cmbprep.interfaces.files import hand_on, image_like, load_image


class ReadOutput(TypedDict):
    """What a node that reads an image returns.

    Attributes
    ----------
    image
        Checked image, float32, on its own grid.
    rough
        The same, divided by its bias in the whole head, for the registration.
    warnings
        What was corrected or is odd.
    """

    image: str
    rough: str
    warnings: list[str]


class ReadMagnitude(FileInterface):
    """Read the echoes of a scan, check each, and combine them into one image.

    Echo times are in seconds, None where unknown.
    """

    def compute(self, in_files: list[str], echo_times: list[Any], *, cwd: Path) -> ReadOutput:
        """Read the magnitude images, one an echo."""
        paths = [Path(path) for path in in_files]
        checked = [read_scan_image(path, role="magnitude") for path in paths]
        first = checked[0].image
        for path, (image, _) in zip(paths, checked, strict=True):
            require_echo_grid(image, path, first, paths[0])
        data = combine_echoes([np.asarray(image.dataobj) for image, _ in checked], echo_times)
        combined = image_like(data.astype(np.float32), first)
        warnings = dict.fromkeys(warning for _, found in checked for warning in found)
        return _with_rough(hand_on(cwd / "magnitude.nii", combined), list(warnings), cwd)


class ReadT1w(FileInterface):
    """Read a T1w image and check it."""

    def compute(self, in_file: str, *, cwd: Path) -> ReadOutput:
        """Read the raw image."""
        image, warnings = read_scan_image(Path(in_file), role="T1w")
        return _with_rough(
            hand_on(cwd / "t1w.nii", image), t1w_warnings(Path(in_file), warnings), cwd
        )


def _with_rough(image: str, warnings: list[str], cwd: Path) -> ReadOutput:
    corrected = correct_bias(load_image(image)).image
    return {
        "image": image,
        "rough": hand_on(cwd / "corrected.nii", corrected),
        "warnings": warnings,
    }
