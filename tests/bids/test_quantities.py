"""Numbers and texts in sidecars: units, plausible ranges, odd types."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmbprep.bids.quantities import QUANTITIES, TEXTS, check_metadata
from cmbprep.outputs.sidecars import ACQUISITION_KEYS

FIELD = "MagneticFieldStrength"


def test_all_that_is_repeated_is_checked() -> None:
    assert set(ACQUISITION_KEYS) <= {*QUANTITIES, *TEXTS}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((FIELD, value) for value in (0.064, 0.55, 1, 1.5, 2.89362, 3, 3.0, 7, 11.7)),
        *(("EchoTime", value) for value in (0.0007, 0.00246, 0.02, 0.05, 0.08)),
        *(("RepetitionTime", value) for value in (0.0027, 0.027, 0.65, 2.3, 5, 8.0)),
        *(("FlipAngle", value) for value in (1, 4, 9, 15.0, 20, 90, 180)),
        *(("SliceThickness", value) for value in (0.35, 1, 4.8, 10, 16, 60)),
        *(("SpacingBetweenSlices", value) for value in (0.5, 1, 6.0)),
        *(("ImagingFrequency", value) for value in (23.6, 63.68, 123.252, 127.74, 297.2)),
        ("Manufacturer", "SIEMENS "),
        ("ManufacturersModelName", "Prisma_fit"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND"]),
        ("ImageType", "ORIGINAL\\PRIMARY"),
        ("SeriesDescription", ""),
    ],
)
def test_plausible_values_are_kept_exactly(key: str, value: Any) -> None:
    found = check_metadata({key: value})
    assert found.warnings == () and not found.left_out
    assert found.metadata == {key: value}
    assert type(found.metadata[key]) is type(value)


@pytest.mark.parametrize(
    ("key", "given", "value", "warning"),
    [
        (FIELD, 30000, 3.0, "gauss"),
        (FIELD, 15000, 1.5, "gauss"),
        (FIELD, 70000, 7.0, "gauss"),
        (FIELD, 1500, 1.5, "millitesla"),
        (FIELD, "64 mT", 0.064, "0.064 tesla"),
        (FIELD, "3T", 3.0, "3 tesla"),
        (FIELD, "3 T", 3.0, "3 tesla"),
        (FIELD, "1.5 Tesla", 1.5, "1.5 tesla"),
        (FIELD, "1,5", 1.5, "1.5 tesla"),
        (FIELD, "3000 mT", 3.0, "3 tesla"),
        (FIELD, "30000 G", 3.0, "3 tesla"),
        (FIELD, "30000", 3.0, "gauss"),
        (FIELD, [3], 3, "list"),
        (FIELD, [3, 3], 3, "list"),
        (FIELD, ["3T"], 3.0, "tesla"),
        ("EchoTime", 20, 0.02, "milliseconds"),
        ("EchoTime", 2.46, 0.00246, "milliseconds"),
        ("EchoTime", 20000, 0.02, "microseconds"),
        ("EchoTime", "20 ms", 0.02, "0.02 seconds"),
        ("EchoTime", "0.02", 0.02, "0.02 seconds"),
        ("EchoTime", "20", 0.02, "milliseconds"),
        ("EchoTime", "20000 µs", 0.02, "0.02 seconds"),
        ("RepetitionTime", 27, 0.027, "milliseconds"),
        ("RepetitionTime", 650, 0.65, "milliseconds"),
        ("RepetitionTime", 2300, 2.3, "milliseconds"),
        ("RepetitionTime", "650000 us", 0.65, "0.65 seconds"),
        ("FlipAngle", 0.261799, 14.999978, "radians"),
        ("FlipAngle", "15°", 15.0, "15 degrees"),
        ("SliceThickness", 0.002, 2.0, "metres"),
        ("SliceThickness", 2000, 2.0, "micrometres"),
        ("SpacingBetweenSlices", "2 mm", 2.0, "2 millimetres"),
        ("SpacingBetweenSlices", "0.2 cm", 2.0, "2 millimetres"),
        ("ImagingFrequency", 123250000, 123.25, "hertz"),
        ("ImagingFrequency", 123250.0, 123.25, "kilohertz"),
        ("Manufacturer", ["SIEMENS"], "SIEMENS", "list"),
        ("ManufacturersModelName", 750, "750", "number"),
        ("Manufacturer", "GE\tMEDICAL\nSYSTEMS", "GE MEDICAL SYSTEMS", "control characters"),
    ],
)
def test_values_with_one_reading_are_corrected(
    key: str, given: Any, value: Any, warning: str
) -> None:
    found = check_metadata({key: given}, origins={key: "T2starw.json"})
    assert found.metadata[key] == (
        pytest.approx(value, rel=1e-7) if isinstance(value, float) else value
    )
    (text,) = found.warnings
    assert warning in text and key in text and "T2starw.json" in text
    assert not found.left_out


@pytest.mark.parametrize(
    ("key", "given"),
    [
        *((FIELD, value) for value in (0, -3, 64, 128, 123.25, 2100, 3000, 25, 1e9, 0.001)),
        *((FIELD, value) for value in ("", "n/a", "high", "3 K", "1,500", "3 T?", "nan", "inf")),
        *((FIELD, value) for value in (True, False, [], [1.5, 3], [[3]], {"value": 3}, [None])),
        *((FIELD, value) for value in (math.nan, math.inf, 10**400, "9" * 400)),
        *(("EchoTime", value) for value in (0, 0.9, 0.5, 0.2, 1e-6, -0.02, -20, 500, 1e9)),
        ("EchoTime", [0.005, 0.01]),
        ("EchoTime", "0.9 s"),
        *(("RepetitionTime", value) for value in (0, -1, 1e-5, 65000)),
        *(("FlipAngle", value) for value in (0, -15, 400, None)),
        *(("SliceThickness", value) for value in (0, -2, 176, None)),
        *(("SpacingBetweenSlices", value) for value in (0, -2)),
        *(("ImagingFrequency", value) for value in (0, 1, 900)),
        *(("Manufacturer", value) for value in (None, True, {"a": 1}, ["A", "B"])),
        *(("ImageType", value) for value in (None, 3, {"a": 1}, [["M"]], [None])),
        ("SeriesDescription", ["a", "b"]),
    ],
)
def test_everything_else_is_unknown_with_one_warning(key: str, given: Any) -> None:
    found = check_metadata({"before": 1, key: given, "after": 2})
    assert found.metadata == {"before": 1, "after": 2}
    (text,) = found.warnings
    assert text.startswith(key) and "left out as unknown" in text and len(text) < 200
    assert found.left_out == {key}


@pytest.mark.parametrize("key", ["EchoTime", FIELD])
def test_null_is_left_to_those_who_need_the_value(key: str) -> None:
    found = check_metadata({key: None})
    assert (found.metadata, found.warnings, found.left_out) == ({}, (), frozenset())
    found = check_metadata({key: None}, silent=frozenset({key}))
    assert (found.metadata, found.warnings, found.left_out) == ({}, (), frozenset({key}))


def test_the_frequency_tells_gauss_from_millitesla() -> None:
    assert check_metadata({FIELD: 3000, "ImagingFrequency": 127.7}).metadata[FIELD] == 3.0
    assert check_metadata({FIELD: 3000, "ImagingFrequency": 12.8}).metadata[FIELD] == 0.3
    assert FIELD not in check_metadata({FIELD: 3000, "ImagingFrequency": 63.8}).metadata


@pytest.mark.parametrize("field", [3000, "3000", [3000]])
@pytest.mark.parametrize("frequency", [123250000, 123250.0, "123.25 MHz", [123.25]])
def test_the_frequency_is_checked_before_it_decides(field: Any, frequency: Any) -> None:
    found = check_metadata({FIELD: field, "ImagingFrequency": frequency})
    assert found.metadata == {FIELD: 3.0, "ImagingFrequency": 123.25}


@pytest.mark.parametrize(
    "frequency",
    [10**400, -(10**400), math.nan, True, None, "fast", {}],
    ids=["large", "-large", "nan", "true", "null", "text", "object"],
)
def test_an_unknown_frequency_does_not_decide(frequency: Any) -> None:
    found = check_metadata({FIELD: 3000, "ImagingFrequency": frequency})
    assert found.metadata == {}
    assert "may be in gauss or millitesla" in found.warnings[0]


@pytest.mark.parametrize("key", [*QUANTITIES, *TEXTS])
@pytest.mark.parametrize("digits", [400, 5000])
def test_integers_of_hundreds_of_digits_are_unknown(key: str, digits: int) -> None:
    large = 10**digits
    for value in (large, -large, [large], [large, large], [large, 1], [[large]], {"a": large}):
        found = check_metadata({key: value})
        assert found.metadata == {}
        (text,) = found.warnings
        assert text.startswith(key) and "left out as unknown" in text and len(text) < 200


def test_field_and_frequency_that_contradict_each_other_are_named() -> None:
    both = {FIELD: 3, "ImagingFrequency": 63.68}
    found = check_metadata(both)
    assert found.metadata == both
    (text,) = found.warnings
    assert "contradict" in text and "1.5 T" in text
    # Nominal fields: 3 T magnets of one maker run at 2.89 T.
    for sound in ({FIELD: 3, "ImagingFrequency": 123.2}, {FIELD: 7, "ImagingFrequency": 297.2}):
        assert check_metadata(sound).warnings == ()


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([3000, 123250000, 10**400, -(10**400)])
    | st.floats()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)


@given(metadata=st.dictionaries(st.sampled_from([*QUANTITIES, *TEXTS, "ImageType"]), ANY))
def test_no_implausible_value_is_left_whatever_is_given(metadata: dict[str, Any]) -> None:
    found = check_metadata(metadata)
    for key, value in found.metadata.items():
        if key in QUANTITIES:
            assert isinstance(value, int | float) and not isinstance(value, bool)
            assert QUANTITIES[key].holds(value)
        elif key in TEXTS:
            assert isinstance(value, str)
    # A second check has nothing to correct.
    again = check_metadata(found.metadata)
    assert again.metadata == found.metadata
    assert not any("contradict" not in text for text in again.warnings)
