"""Checks of the numbers and texts in sidecars that the program uses or repeats.

BIDS says which unit each key has; people and converters also write others. A value that is
plausible in the unit of BIDS is kept as it is. One that is plausible in exactly one other
unit is converted with a warning. Everything else is left out with a warning, so that checked
metadata never hold an implausible value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class MeasureUnit(NamedTuple):
    """A unit in which a quantity may be written.

    Parameters
    ----------
    name
        What messages call it.
    symbols
        How it is written behind a number, in lower case.
    per_base
        How many of it make one of the unit that BIDS asks for.
    """

    name: str
    symbols: tuple[str, ...]
    per_base: float = 1.0


class Quantity(NamedTuple):
    """What a number in a sidecar may be.

    Parameters
    ----------
    unit
        Unit that BIDS asks for.
    low, high
        Smallest and largest plausible value in that unit.
    guessed
        Units that a bare number out of this range may be in.
    guess_low, guess_high
        Narrower range for such a guess, in the unit of BIDS.
    written
        Further units that are understood where a text names them.
    """

    unit: MeasureUnit
    low: float
    high: float
    guessed: tuple[MeasureUnit, ...] = ()
    guess_low: float = 0.0
    guess_high: float = math.inf
    written: tuple[MeasureUnit, ...] = ()

    def holds(self, value: float) -> bool:
        """Return whether a value in the unit of BIDS is plausible."""
        return self.low <= value <= self.high

    def guesses(self, value: float) -> list[tuple[MeasureUnit, float]]:
        """List the units in which a number is plausible, and its value in that of BIDS."""
        readings = [(unit, _converted(value, unit)) for unit in self.guessed]
        return [
            (unit, found)
            for unit, found in readings
            if self.holds(found) and self.guess_low <= found <= self.guess_high
        ]


_TESLA = MeasureUnit("tesla", ("t", "tesla"))
_GAUSS = MeasureUnit("gauss", ("g", "gauss"), 1e4)
_MILLITESLA = MeasureUnit("millitesla", ("mt", "millitesla"), 1e3)
_SECOND = MeasureUnit("seconds", ("s", "sec", "second", "seconds"))
_MILLISECOND = MeasureUnit("milliseconds", ("ms", "msec", "millisecond", "milliseconds"), 1e3)
_MICROSECOND = MeasureUnit("microseconds", ("us", "µs", "μs", "usec", "microseconds"), 1e6)
_DEGREE = MeasureUnit("degrees", ("°", "deg", "degree", "degrees"))
_RADIAN = MeasureUnit("radians", ("rad", "radian", "radians"), math.pi / 180)
_MILLIMETRE = MeasureUnit(
    "millimetres", ("mm", "millimetre", "millimetres", "millimeter", "millimeters")
)
_METRE = MeasureUnit("metres", ("m", "metre", "metres", "meter", "meters"), 1e-3)
_CENTIMETRE = MeasureUnit("centimetres", ("cm", "centimetre", "centimetres"), 0.1)
_MICROMETRE = MeasureUnit("micrometres", ("um", "µm", "μm", "micron", "microns"), 1e3)
_MEGAHERTZ = MeasureUnit("megahertz", ("mhz", "megahertz"))
_HERTZ = MeasureUnit("hertz", ("hz", "hertz"), 1e6)
_KILOHERTZ = MeasureUnit("kilohertz", ("khz", "kilohertz"), 1e3)

#: A slab may be thick (a projection), a guessed slice may not.
_THICKNESS = Quantity(
    unit=_MILLIMETRE,
    low=0.1,
    high=100.0,
    guessed=(_METRE, _MICROMETRE),
    guess_low=0.3,
    guess_high=20.0,
    written=(_CENTIMETRE,),
)

#: Key -> what it may be, for gradient echo, susceptibility-weighted and T1-weighted images.
QUANTITIES: Mapping[str, Quantity] = {
    "MagneticFieldStrength": Quantity(
        unit=_TESLA,
        low=0.05,
        high=12.0,
        guessed=(_GAUSS, _MILLITESLA),
        # A bare 64 or 128 is rather the frequency in megahertz than a field in millitesla.
        guess_low=0.2,
    ),
    "EchoTime": Quantity(
        unit=_SECOND,
        low=0.0005,
        high=0.15,
        guessed=(_MILLISECOND, _MICROSECOND),
        # Below a millisecond a wrong unit is no likelier than a wrong number: 0.9 is neither.
        guess_low=0.001,
    ),
    # Microseconds only where they are named: 2300 are milliseconds of an inversion recovery.
    "RepetitionTime": Quantity(
        unit=_SECOND, low=0.002, high=10.0, guessed=(_MILLISECOND,), written=(_MICROSECOND,)
    ),
    "FlipAngle": Quantity(unit=_DEGREE, low=1.0, high=180.0, guessed=(_RADIAN,)),
    "SliceThickness": _THICKNESS,
    "SpacingBetweenSlices": _THICKNESS,
    "ImagingFrequency": Quantity(
        unit=_MEGAHERTZ, low=2.0, high=520.0, guessed=(_HERTZ, _KILOHERTZ)
    ),
}

#: Keys of texts that the program repeats or decides by.
TEXTS = (
    "Manufacturer",
    "ManufacturersModelName",
    "PulseSequenceType",
    "SeriesDescription",
)

#: Keys of which a text or a list of texts is expected.
TEXT_LISTS = ("ImageType",)

#: Hydrogen's frequency in a field, MHz per tesla.
_MHZ_PER_TESLA = 42.577
#: How far the frequency may be from the nominal field: real 3 T magnets run at 2.89 T.
_FIELD_TOLERANCE = 0.1

_NUMBER = re.compile(r"([-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s.,]*)")


@dataclass(frozen=True)
class Checked:
    """Metadata of an image after the check.

    Parameters
    ----------
    metadata
        The keys whose values are plausible, and all keys that are not checked.
    warnings
        Sentences on what was converted or left out.
    left_out
        Keys that were left out with a warning.
    """

    metadata: dict[str, Any]
    warnings: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()


class _LeftOutError(Exception):
    """A value cannot be used; the text says why."""


def check_metadata(
    metadata: Mapping[str, Any],
    *,
    origins: Mapping[str, str] | None = None,
    silent: frozenset[str] = frozenset(),
) -> Checked:
    """Check the numbers and texts in the sidecar of an image.

    Parameters
    ----------
    metadata
        Keys and values of a sidecar after inheritance.
    origins
        Key -> name of the file that its value comes from, for the warnings.
    silent
        Keys whose missing value (null) was already warned about.

    Returns
    -------
    Checked
        The same keys in the same order; those without a plausible value are left out.
    """
    clean: dict[str, Any] = {}
    warnings: list[str] = []
    left_out: set[str] = set()
    for key, given in metadata.items():
        if key not in QUANTITIES and key not in TEXTS and key not in TEXT_LISTS:
            clean[key] = given
            continue
        place = f" in {origins[key]}" if origins and key in origins else ""
        try:
            value, note = _checked(key, given, metadata)
        except _LeftOutError as reason:
            # Null says by itself that the value is unknown. Callers tell of the two keys
            # that they need.
            if given is None and key in ("EchoTime", "MagneticFieldStrength", *silent):
                left_out.update({key} & silent)
                continue
            warnings.append(f"{key} {_shown(given)}{place} {reason} and is left out as unknown")
            left_out.add(key)
            continue
        clean[key] = value
        if note:
            warnings.append(f"{key} {_shown(given)}{place} {note}")
    if problem := _contradiction(clean):
        warnings.append(problem)
    return Checked(clean, tuple(warnings), frozenset(left_out))


def _checked(key: str, given: Any, metadata: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the value that counts, and how it differs from the one given."""
    if given is None:
        raise _LeftOutError("is no value")
    if key in TEXT_LISTS:
        return _image_type(given)
    value, note = _only_item(given)
    if key in TEXTS:
        text, second = _text(value)
        return (given, "") if text is given else (text, note or second)
    quantity = QUANTITIES[key]
    named = quantity.unit.name
    unit: MeasureUnit | None = None
    if isinstance(value, str):
        value, unit = _number_and_unit(value, quantity)
        note = "text"
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise _LeftOutError(f"is not a number ({named} are expected)")
    if not _is_finite(value):
        raise _LeftOutError("is not a finite number")
    if unit is not None:
        value = _converted(value, unit)
    if quantity.holds(value):
        return value, f"is a text and is read as {value:g} {named}" if note == "text" else note
    if unit is None:
        return _guessed(key, value, quantity, metadata)
    raise _not_plausible(quantity)


def _only_item(given: Any) -> tuple[Any, str]:
    """Return the one value of a list that has one, or the same several times."""
    if not isinstance(given, list | tuple):
        return given, ""
    if not given:
        raise _LeftOutError("is an empty list")
    first = given[0]
    if any(type(item) is not type(first) or item != first for item in given[1:]):
        raise _LeftOutError("is a list of several values, of which none is the image's")
    if isinstance(first, list | tuple | dict):
        raise _LeftOutError("is a nested list")
    return first, f"is a list and is read as {_shown(first)}"


def _text(value: Any) -> tuple[str, str]:
    """Check a text: without line ends and tabs, which would break tables."""
    is_text = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not is_text or (isinstance(value, int) and not _is_finite(value)):
        raise _LeftOutError("is not a text")
    if not isinstance(value, str):
        return str(value), f"is a number and is read as the text {str(value)!r}"
    if value.isprintable():
        return value, ""
    plain = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return plain, f"has line ends or other control characters and is read as {_shown(plain)}"


def _image_type(given: Any) -> tuple[Any, str]:
    if isinstance(given, str):
        return given, ""
    if isinstance(given, list | tuple) and all(isinstance(item, str | int) for item in given):
        return given, ""
    raise _LeftOutError("is not a list of texts")


def _number_and_unit(text: str, quantity: Quantity) -> tuple[float, MeasureUnit | None]:
    """Read a number, and the unit behind it where there is one."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or re.search(r"[1-9]\d*,\d{3}$", match.group(1)):
        # 1,500 may be a thousand and a half, or one and a half.
        raise _LeftOutError(f"is not a number ({quantity.unit.name} are expected)")
    value, symbol = float(match.group(1).replace(",", ".")), match.group(2).lower()
    if not symbol:
        return value, None
    for unit in (quantity.unit, *quantity.guessed, *quantity.written):
        if symbol in unit.symbols:
            return value, unit
    raise _LeftOutError(f"has a unit that is not known here ({quantity.unit.name} expected)")


def _guessed(
    key: str, value: float, quantity: Quantity, metadata: Mapping[str, Any]
) -> tuple[float, str]:
    """Find the one other unit in which a number is plausible."""
    readings = quantity.guesses(value)
    if len(readings) > 1 and key == "MagneticFieldStrength":
        frequency = _frequency(metadata)
        if frequency is not None:
            readings = [one for one in readings if _agree(one[1], frequency)] or readings
    if not readings:
        raise _not_plausible(quantity)
    names, wanted = " or ".join(unit.name for unit, _ in readings), quantity.unit.name
    if len(readings) > 1:
        raise _LeftOutError(f"may be in {names} ({wanted} are expected)")
    found = readings[0][1]
    return found, f"is taken to be in {names} and read as {found:g} {wanted}; BIDS wants {wanted}"


def _not_plausible(quantity: Quantity) -> _LeftOutError:
    span = f"{quantity.low:g} to {quantity.high:g} {quantity.unit.name}"
    return _LeftOutError(f"is not plausible ({span})")


def _converted(value: float, unit: MeasureUnit) -> float:
    # Twelve digits: 0.26 / (pi / 180) has noise behind them.
    return float(f"{value / unit.per_base:.12g}")


def _frequency(metadata: Mapping[str, Any]) -> float | None:
    """Return the imaging frequency (MHz) after its check; None if it is unknown."""
    key = "ImagingFrequency"
    try:
        frequency: float = _checked(key, metadata.get(key), metadata)[0]
    except _LeftOutError:
        return None
    return frequency


def _agree(field: float, frequency: float) -> bool:
    """Return whether a field (T) fits hydrogen's frequency (MHz), both after their check."""
    return abs(frequency / _MHZ_PER_TESLA / field - 1) <= _FIELD_TOLERANCE


def _contradiction(metadata: Mapping[str, Any]) -> str | None:
    """Return a warning if field strength and frequency cannot both be right."""
    field, frequency = metadata.get("MagneticFieldStrength"), metadata.get("ImagingFrequency")
    if field is None or frequency is None or _agree(field, frequency):
        return None
    return (
        f"MagneticFieldStrength {field:g} T and ImagingFrequency {frequency:g} MHz contradict "
        f"each other ({frequency / _MHZ_PER_TESLA:.2g} T by the frequency); the field strength "
        "is used as it stands"
    )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: Any) -> str:
    """Write a value of any kind in a message, at most 40 characters of it."""
    if isinstance(value, int) and not isinstance(value, bool) and not _is_finite(value):
        return "of hundreds of digits"
    text = "null" if value is None else _first_items(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _first_items(value: Any) -> str:
    if isinstance(value, Sequence) and len(value) > 50:
        value = value[:50]
    try:
        return repr(value)
    except ValueError:
        # Python does not write integers of more than 4300 digits.
        return "with a number of thousands of digits"
