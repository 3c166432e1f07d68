"""How two scans of a participant were acquired, how they differ, and what each can show.

Numbers and sizes of microbleeds depend on the protocol: the volume of the void grows with field
and echo time, and thick slices average small voids away. A difference is a limit of every
comparison of the two scans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Relative differences that are still the same protocol: of field strength, echo time, distance
#: between slices, and voxel size within slices.
SAME_FIELD, SAME_ECHO, SAME_SLICE, SAME_VOXEL = 0.05, 0.05, 0.1, 0.15
#: Volume of a void by echo time: 20 to 40 ms multiply it by 2.3 (T2*w and SWI). Field strength
#: acts on the phase in the same way.
VOLUME_EXPONENT = 1.2
#: Loss of signal that a lesion must be expected to have in a scan that is to show it, wherever the
#: slices come to lie, and its diameter in voxels within slices. Below, its absence means nothing.
LEAST_CONTRAST = 0.2
LEAST_VOXELS = 2.0


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """How a scan was acquired; None for what is not known.

    Attributes
    ----------
    sequence
        Suffix of the image that lesions were detected on.
    field_strength
        Tesla.
    echo_time
        Longest echo time, s.
    spacing_mm
        Distance between voxel centres along each axis.
    scanner
        Manufacturer and model.
    """

    sequence: str | None = None
    field_strength: float | None = None
    echo_time: float | None = None
    spacing_mm: tuple[float, float, float]
    scanner: str | None = None

    def __post_init__(self) -> None:
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise ValueError(f"voxel sizes are three positive numbers, not {self.spacing_mm}")
        for name in ("field_strength", "echo_time"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, not {value}")

    @classmethod
    def of(
        cls,
        metadata: Mapping[str, Any],
        *,
        sequence: str | None,
        echo_times: Sequence[float | None],
        spacing_mm: Sequence[float],
    ) -> Acquisition:
        """Take what is needed of a sidecar."""
        times = [time for time in echo_times if time is not None]
        time = max(times, default=metadata.get("EchoTime"))
        model = [metadata.get(key) for key in ("Manufacturer", "ManufacturersModelName")]
        a, b, c = (float(size) for size in spacing_mm)
        return cls(
            sequence=sequence,
            field_strength=_positive(metadata.get("MagneticFieldStrength")),
            echo_time=_positive(time),
            spacing_mm=(a, b, c),
            scanner=" ".join(str(part) for part in model if part) or None,
        )

    @property
    def slice_mm(self) -> float:
        """Largest distance between voxel centres."""
        return max(self.spacing_mm)

    @property
    def in_plane_mm(self) -> float:
        """Voxel size within slices: the mean of the two smaller ones."""
        return sum(sorted(self.spacing_mm)[:2]) / 2


def _positive(value: Any) -> float | None:
    """Return a number of a sidecar; None for anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 < value < 1e6 else None


def describe_changes(first: Acquisition, second: Acquisition) -> tuple[str, ...]:
    """Return how two protocols differ, one short text for each difference; empty if they agree.

    What is not known of one scan is a difference too: nothing says that it is the same.
    """
    return tuple(_changes(first, second))


def _changes(first: Acquisition, second: Acquisition) -> Iterator[str]:
    numbers = (
        ("field strength", "T", first.field_strength, second.field_strength, SAME_FIELD),
        ("echo time", "ms", _ms(first.echo_time), _ms(second.echo_time), SAME_ECHO),
        ("slice distance", "mm", first.slice_mm, second.slice_mm, SAME_SLICE),
        ("voxel size within slices", "mm", first.in_plane_mm, second.in_plane_mm, SAME_VOXEL),
    )
    for title, unit, one, other, tolerance in numbers:
        if one is None or other is None:
            yield f"{title} not known"
        elif abs(one - other) > tolerance * max(one, other):
            yield f"{title} {one:.3g} to {other:.3g} {unit}"
    for title, was, now in (
        ("sequence", first.sequence, second.sequence),
        ("scanner", first.scanner, second.scanner),
    ):
        if was is None or now is None:
            yield f"{title} not known"
        elif was != now:
            yield f"{title} {was} to {now}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def blooming(seen: Acquisition, other: Acquisition) -> float:
    """Return by how much the diameter of a void is expected to differ in another scan.

    Parameters
    ----------
    seen, other
        The scan in which the void is known, and the one in which it is expected. What is not
        known of one of them is taken to be the same.
    """
    factor = 1.0
    for name in ("field_strength", "echo_time"):
        was, now = getattr(seen, name), getattr(other, name)
        if was is not None and now is not None:
            factor *= now / was
    return float(factor ** (VOLUME_EXPONENT / 3))


def hidden_by(
    diameter_mm: float, contrast: float | None, seen: Acquisition, other: Acquisition
) -> str | None:
    """Return why a scan may not have shown a lesion that is seen in another one.

    The lesion's diameter is scaled by :func:`blooming`. Its contrast is scaled by the part of a
    slice that it fills: where it is seen, the lesion is taken to lie in the middle of a slice; in
    the other scan, it may lie half in each of two. It may be hidden there if the expected contrast
    is below :data:`LEAST_CONTRAST`; or if the expected diameter is below :data:`LEAST_VOXELS`
    voxels within slices, and smaller in voxels than where it is seen.

    Parameters
    ----------
    diameter_mm, contrast
        Of the lesion where it is seen; contrast from 0 to 1, None where it is not known.
    seen, other
        The scan that shows the lesion, and the one that does not.

    Returns
    -------
    str or None
        The reason; None if the scan would have shown it.
    """
    expected = diameter_mm * blooming(seen, other)
    filled = min(1.0, expected / (2 * other.slice_mm)) / min(1.0, diameter_mm / seen.slice_mm)
    shown = min(1.0, filled * (1.0 if contrast is None else contrast))
    voxels, before = expected / other.in_plane_mm, diameter_mm / seen.in_plane_mm
    faint = shown < LEAST_CONTRAST
    small = voxels < before and voxels < LEAST_VOXELS
    if not faint and not small:
        return None
    return f"expected diameter {expected:.1f} mm, contrast {shown:.2f} or more"
