"""Scanner protocols: presets named after real ones, with the publications they follow.

The presets are in ``protocols.json``.
Where a source gives a range, a preset is one point of it. Anything a source does not
give (flip angle, noise) is set to what is usual for that sequence and field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from cmbprep.errors import UsageError
from cmbprep.lab.shared import read_data
from cmbprep.lab.simulate.tissue import TISSUES


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a blood-sensitive scan is acquired.

    Attributes
    ----------
    name
        Letters, digits and hyphens.
    source
        The publication or document that the numbers follow.
    three_d
        Phase-encoded through the slab, or slice by slice.
    field_strength
        Tesla.
    echo_times
        Seconds, ascending.
    repetition_time, flip_angle
        Milliseconds, degrees.
    voxel
        mm: in the plane twice, and the thickness of a slice.
    gap
        mm between slices.
    matrix
        Voxels in the plane.
    slices
        Number of slices.
    orientation
        ``axial``, ``sagittal`` or ``coronal``, tilted by `tilt` degrees at most.
    motion
        mm that the head drifts, one standard deviation, while a slice or slab is taken.
    fold
        Voxels at each end of the phase-encoded axis that fold into the field of view.
    filtered
        K-space is tapered at its edges, as most reconstructions do against ringing.
    snr
        Signal of white matter at the first echo, by the noise of one channel.
    suffix
        BIDS suffix of the images: ``T2starw``, ``MEGRE`` or ``swi``.
    phase
        Phase images are written, too.
    phase_sign
        +1 or -1, see :func:`cmbprep.lab.simulate.signal.gradient_echo`.
    manufacturer, model
        What the sidecar says.
    tissue_signal
        Names of tissues with their signal at the last echo, relative to white matter. It takes
        the place of what relaxation times give, so that a scan has the contrast that was
        measured in real images; decay with echo time, iron and noise stay as they are.
    shading
        Factor on the unevenness of the receiving coil.
    """

    name: str
    source: str
    three_d: bool
    field_strength: float
    echo_times: tuple[float, ...]
    repetition_time: float
    flip_angle: float
    voxel: tuple[float, float, float]
    gap: float = 0.0
    matrix: tuple[int, int]
    slices: int
    orientation: str = "axial"
    tilt: float = 8.0
    motion: float = 0.0
    fold: int = 0
    filtered: bool = True
    snr: float = 30.0
    suffix: str = "T2starw"
    phase: bool = False
    phase_sign: int = 1
    manufacturer: str = "Siemens"
    model: str = "Simulated"
    tissue_signal: tuple[tuple[str, float], ...] = ()
    shading: float = 1.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.field_strength <= 11.7:
            raise ValueError(f"a field of {self.field_strength} T cannot be simulated")
        if not self.echo_times or list(self.echo_times) != sorted(set(self.echo_times)):
            raise ValueError("echo times must ascend")
        if min(self.echo_times) <= 0 or max(self.echo_times) > 0.1:
            raise ValueError("echo times are in seconds, above 0 and up to 0.1")
        if min(self.voxel) <= 0 or self.gap < 0 or min(*self.matrix, self.slices) < 1:
            raise ValueError("voxel size, matrix and slices must be positive, the gap not below 0")
        if self.motion < 0 or not 0 <= self.fold <= self.matrix[1] // 2:
            raise ValueError("motion must not be below 0, and at most half the image can fold")
        if self.three_d and self.gap:
            raise ValueError("a 3D slab has no gaps")
        if self.orientation not in ("axial", "sagittal", "coronal"):
            raise ValueError(f"the orientation {self.orientation!r} is not known")
        if self.suffix not in ("T2starw", "MEGRE", "swi"):
            raise ValueError(f"the suffix {self.suffix!r} is not one of a blood-sensitive scan")
        if self.phase_sign not in (-1, 1):
            raise ValueError("the sign of the phase is +1 or -1")
        if not {name for name, _ in self.tissue_signal} <= set(TISSUES) - {"wm"}:
            raise ValueError(f"a signal can be set for {', '.join(TISSUES)}, but for wm")
        if min([self.shading, *(value for _, value in self.tissue_signal)]) < 0:
            raise ValueError("signals and shading must not be below 0")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres, mm."""
        return (self.voxel[0], self.voxel[1], self.voxel[2] + self.gap)


def _presets() -> dict[str, Protocol]:
    listed: list[dict[str, Any]] = read_data("cmbprep.lab.simulate", "protocols.json")
    for preset in listed:
        preset.update({k: tuple(v) for k, v in preset.items() if isinstance(v, list)})
        preset["tissue_signal"] = tuple(preset.get("tissue_signal", {}).items())
    return {preset["name"]: Protocol(**preset) for preset in listed}


#: Name -> protocol.
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(_presets())

#: What a dataset cycles through if nobody chooses.
DEFAULT_PROTOCOLS = ("clinical-2d-3t", "clinical-2d-1.5t", "ukb-swi")


def get_protocol(name: str) -> Protocol:
    """Return a preset by its name.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UsageError(
            f"there is no protocol {name!r}", hint=f"choose of {', '.join(PROTOCOLS)}"
        ) from None


# --- Participants: who is scanned, and how many microbleeds each has -----------------------------
#
# Counts are heavy-tailed, as in cohorts of older people: most carriers have 1 to 4, few have
# dozens. Carriers are more frequent here than in the population, because a dataset is
# made to have something to find; age, hypertension and antithrombotic drugs shift the odds.


#: Largest count of a scan in the cohorts that the docs' page on the simulator lists.
LARGEST_COUNT = 83


@dataclass(frozen=True, kw_only=True)
class Person:
    """A simulated participant.

    Attributes
    ----------
    label
        Without ``sub-``.
    age, sex
        Years; ``F`` or ``M``.
    site
        ``site1`` and so on.
    hypertension, antithrombotic
        Risk factors.
    atrophy, lesion_load
        0..1, of the brain and of its white-matter lesions.
    microbleeds
        Number that are put in; not all need be visible on the scan.
    protocol
        Name of the preset that the person is scanned with.
    """

    label: str
    age: int
    sex: str
    site: str
    hypertension: bool
    antithrombotic: bool
    atrophy: float
    lesion_load: float
    microbleeds: int
    protocol: str


def draw_people(number: int, seed: int, protocols: tuple[str, ...], sites: int) -> list[Person]:
    """Draw participants; the first n of a longer list are those of a shorter one.

    Parameters
    ----------
    number
        How many.
    seed
        Same seed, same people.
    protocols
        Presets; every site takes the next one, and with one site every participant does.
    sites
        Number of sites.
    """
    start = float(np.random.default_rng([seed, 0]).random())
    width = max(2, len(str(number)))
    return [
        _draw(index, f"{index + 1:0{width}d}", seed, protocols, sites, start)
        for index in range(number)
    ]


def _draw(
    index: int, label: str, seed: int, protocols: tuple[str, ...], sites: int, start: float
) -> Person:
    rng = np.random.default_rng([seed, 1, index])
    age = int(np.clip(rng.normal(70, 10), 45, 92))
    hypertension = bool(rng.random() < 0.25 + 0.01 * (age - 45))
    antithrombotic = bool(rng.random() < 0.15 + 0.008 * (age - 45))
    decade = (age - 70) / 10
    carrier = 1 / (1 + np.exp(-(0.5 + 0.5 * decade + 0.5 * hypertension + 0.3 * antithrombotic)))
    # The golden ratio spreads carriers evenly over a short list of participants.
    number = 0
    if (start + index * 0.6180339887) % 1.0 < carrier:
        number = int(np.clip(np.round(np.exp(rng.normal(np.log(2.6), 1.1))), 1, LARGEST_COUNT))
    site = index % sites
    return Person(
        label=label,
        age=age,
        sex="F" if rng.random() < 0.5 else "M",
        site=f"site{site + 1}",
        hypertension=hypertension,
        antithrombotic=antithrombotic,
        atrophy=float(np.clip(0.3 + 0.15 * decade + rng.normal(0, 0.15), 0, 1)),
        lesion_load=float(
            np.clip(0.3 + 0.15 * decade + 0.1 * hypertension + rng.normal(0, 0.2), 0, 1)
        ),
        microbleeds=number,
        protocol=protocols[(site if sites > 1 else index) % len(protocols)],
    )
