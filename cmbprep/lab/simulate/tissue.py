"""What tissues are made of: relaxation, proton density, susceptibility, iron by age.

T2* of grey and white matter: Peters AM et al., Magn Reson Imaging 2007;25:748-753 (1.5, 3
and 7 T). T1: Rooney WD et al., Magn Reson Med 2007;57:308-318 (1.5 and 7 T) and Wansapura
JP et al., J Magn Reson Imaging 1999;9:531-538 (3 T). The values of bone, scalp and blood are
round figures of the right size; nothing downstream depends on their exact value.

Iron by age: Hallgren B, Sourander P. J Neurochem 1958;3:41-51 (mg per 100 g wet weight).
The slopes that turn iron into susceptibility and R2* are round figures chosen so that the
globus pallidum at 60 years has about +0.2 ppm and an R2* of about 33 /s at 3 T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIELDS = (1.5, 3.0, 7.0)


@dataclass(frozen=True)
class Tissue:
    """Magnetic properties of a tissue at 1.5, 3 and 7 T.

    Attributes
    ----------
    proton_density
        Relative to free water.
    t1_ms, r2star
        At the three fields; milliseconds and 1/s.
    chi
        Susceptibility in ppm (SI) relative to water.
    """

    proton_density: float
    t1_ms: tuple[float, float, float]
    r2star: tuple[float, float, float]
    chi: float

    def t1_at(self, field_strength: float) -> float:
        """T1 in ms, interpolated between the tabulated fields."""
        return _interpolate(self.t1_ms, field_strength)

    def r2star_at(self, field_strength: float) -> float:
        """R2* in 1/s, interpolated between the tabulated fields."""
        return _interpolate(self.r2star, field_strength)


def _interpolate(values: tuple[float, float, float], field: float) -> float:
    low = 0 if field <= FIELDS[1] else 1
    part = (field - FIELDS[low]) / (FIELDS[low + 1] - FIELDS[low])
    return max(values[low] + part * (values[low + 1] - values[low]), 0.0)


#: The order is that of the first axis of a head's tissue fractions; what is left to 1 is air.
#: Columns: proton density, T1 and R2* at the three fields, susceptibility.
TISSUES: dict[str, Tissue] = {
    "csf": Tissue(1.0, (4000.0, 4000.0, 4000.0), (1.0, 2.0, 4.0), 0.0),
    "gm": Tissue(0.82, (1188.0, 1331.0, 2132.0), (11.9, 15.2, 30.1), 0.02),
    "wm": Tissue(0.70, (656.0, 832.0, 1220.0), (15.1, 18.8, 37.3), -0.03),
    "wmh": Tissue(0.82, (1000.0, 1250.0, 1800.0), (10.0, 13.0, 26.0), -0.01),
    "bone": Tissue(0.06, (300.0, 350.0, 450.0), (400.0, 500.0, 700.0), -2.1),
    "fat": Tissue(0.80, (280.0, 370.0, 500.0), (28.0, 35.0, 60.0), 0.3),
    "muscle": Tissue(0.75, (1000.0, 1400.0, 1900.0), (30.0, 40.0, 70.0), 0.0),
}

#: Air against water, ppm: 0.36 + 9.05 (Schenck JF. Med Phys 1996;23:815-850).
AIR_SUSCEPTIBILITY = 9.41

#: Venous blood against tissue, ppm; what susceptibility mapping finds in the larger veins.
BLOOD_SUSCEPTIBILITY = 0.40

#: nucleus -> (amplitude, rate per year, offset) of offset + amplitude * (1 - exp(-rate * age)).
IRON: dict[str, tuple[float, float, float]] = {
    "pallidum": (21.41, 0.09, 0.37),
    "putamen": (14.62, 0.04, 0.46),
    "caudate": (9.66, 0.05, 0.33),
    # Not fitted by Hallgren and Sourander: of the size they report for adults.
    "red_nucleus": (19.0, 0.09, 0.37),
    "substantia_nigra": (18.0, 0.09, 0.37),
    "dentate": (10.0, 0.05, 0.35),
    "thalamus": (4.8, 0.10, 0.40),
}

#: What tissue R2* and susceptibility above already contain, mg per 100 g (cortex).
IRON_IN_CORTEX = 3.5

#: ppm for each mg of iron in 100 g of tissue.
IRON_TO_CHI = 0.0100

#: 2 pi / (9 sqrt 3) times the proton's gyromagnetic ratio, in 1/s for each tesla and ppm:
#: 323 /s at 3 T (Yablonskiy DA, Haacke EM. Magn Reson Med 1994;32:749-763).
STATIC_DEPHASING = 2 * math.pi / (9 * math.sqrt(3)) * 267.522


def iron_content(nucleus: str, age: float) -> float:
    """Iron of a nucleus beyond that of cortex, mg per 100 g wet weight, at an age in years."""
    amplitude, rate, offset = IRON[nucleus]
    return max(offset + amplitude * (1 - math.exp(-rate * age)) - IRON_IN_CORTEX, 0.0)


def iron_to_r2star(field_strength: float) -> float:
    """R2* in 1/s that each mg of iron in 100 g adds; it grows with the field."""
    return 1.0 * field_strength / 3.0


def static_dephasing_rate(chi: float, field_strength: float) -> float:
    """R2' in 1/s inside a tissue whose mean susceptibility of `chi` ppm sits in grains."""
    return STATIC_DEPHASING * field_strength * abs(chi)


def venous_r2star(field_strength: float) -> float:
    """R2* of venous blood in 1/s: round figures of 17, 48 and 150 at 1.5, 3 and 7 T."""
    return _interpolate((17.0, 48.0, 150.0), field_strength)
