"""How a scan was acquired, in words.

Numbers and sizes of microbleeds depend on field strength, echo time, slice thickness and
sequence, so nothing is pooled over them without saying so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple


class ScanProtocol(NamedTuple):
    """How a scan was acquired, as text; ``unknown`` where the sidecars do not say."""

    site: str
    scanner: str
    field: str
    sequence: str
    echo_time: str
    slice_thickness: str

    @property
    def physics(self) -> str:
        """What numbers and sizes of microbleeds depend on, in one line."""
        echo, slices = f"TE {self.echo_time}", f"slices {self.slice_thickness}"
        return f"{self.sequence} · {self.field} · {echo} · {slices}"

    @property
    def place(self) -> str:
        """Scanner and site, as far as they are known."""
        return " · ".join(part for part in (self.scanner, self.site) if part not in ("", "unknown"))

    @property
    def title(self) -> str:
        """All of it in one line."""
        return " · ".join(part for part in (self.physics, self.place) if part)


def protocol_of(values: Mapping[str, Any]) -> ScanProtocol:
    """Return how a scan was acquired, from its row of the table of scans.

    Field strengths are compared by their nominal value (:func:`nominal_field`), echo times by the
    millisecond, slices by the tenth of a millimetre. Where the
    sidecar gives no slice thickness, the coarsest voxel size stands for it.
    """
    found = [values.get(name) for name in _COLUMNS]
    return _protocol(*(tuple(item) if isinstance(item, list) else item for item in found))


_COLUMNS = (
    *("site", "Manufacturer", "ManufacturersModelName", "sequence", "MagneticFieldStrength"),
    *("EchoTime", "echo_times", "SliceThickness", "voxel_i_mm", "voxel_j_mm", "voxel_k_mm"),
)


# A cohort of thousands of scans has few protocols, each asked for many times.
@lru_cache(maxsize=4096, typed=True)
def _protocol(
    site: Any,
    maker: Any,
    model: Any,
    sequence: Any,
    field: Any,
    echo_time: Any,
    echo_times: Any,
    thickness: Any,
    *sizes: Any,
) -> ScanProtocol:
    scanner = " ".join(str(name) for name in (maker, model) if name)
    times = [t for t in (echo_times or ()) if is_number(t)]
    if not times and is_number(echo_time):
        times = [echo_time]
    echoes = "/".join(f"{1000 * t:.0f}" for t in times)
    if not is_number(thickness):
        thickness = max((size for size in sizes if is_number(size)), default=None)
    return ScanProtocol(
        site=str(site or ""),
        scanner=scanner or "unknown",
        field=f"{nominal_field(field):g} T" if is_number(field) else "field unknown",
        sequence=str(sequence or "unknown"),
        echo_time=f"{echoes} ms" if echoes else "unknown",
        slice_thickness="unknown" if thickness is None else f"{thickness:.1f} mm",
    )


#: Field strengths that scanners are sold by, T, and how far a sidecar may be off.
NOMINAL_FIELDS = (0.35, 0.5, 1.0, 1.5, 3.0, 4.0, 4.7, 7.0, 9.4)
_FIELD_TOLERANCE = 0.05


def nominal_field(tesla: float) -> float:
    """Return the field strength that a scanner is sold by; others stay as they are.

    Sidecars of scanners sold as 3 T give 2.89, and 2.9 or 3 after conversion.

    Examples
    --------
    >>> nominal_field(2.89362), nominal_field(1.494), nominal_field(2.0)
    (3.0, 1.5, 2.0)
    """
    nearest = min(NOMINAL_FIELDS, key=lambda field: abs(field - tesla))
    return nearest if abs(nearest - tesla) <= _FIELD_TOLERANCE * nearest else tesla


def is_number(value: Any) -> bool:
    """Return whether a value of a table is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
