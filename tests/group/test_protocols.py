"""How scans were acquired, what of it forbids pooling, and scans that stand apart."""

from __future__ import annotations

from typing import Any

import pytest

from cmbprep.group.outliers import find_outliers
from cmbprep.group.page_data import Measure
from cmbprep.group.pooling import compare_protocols
from cmbprep.group.protocols import protocol_of


def scan(name: str = "sub-1_T2starw", **changes: Any) -> dict[str, Any]:
    return {
        "participant_id": name.partition("_")[0],
        "scan": name,
        "status": "complete",
        "site": "A",
        "sequence": "T2starw",
        "MagneticFieldStrength": 3,
        "EchoTime": 0.02,
        "SliceThickness": 3.0,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "T2starw · 3 T · TE 20 ms · slices 3.0 mm"),
        ({"MagneticFieldStrength": 1.5}, "T2starw · 1.5 T · TE 20 ms · slices 3.0 mm"),
        ({"MagneticFieldStrength": 2.89362}, "T2starw · 3 T · TE 20 ms · slices 3.0 mm"),
        ({"MagneticFieldStrength": 2.0}, "T2starw · 2 T · TE 20 ms · slices 3.0 mm"),
        ({"EchoTime": 0.0204}, "T2starw · 3 T · TE 20 ms · slices 3.0 mm"),
        ({"echo_times": [0.01, 0.02]}, "T2starw · 3 T · TE 10/20 ms · slices 3.0 mm"),
        (
            {"SliceThickness": None, "voxel_i_mm": 0.5, "voxel_k_mm": 2.0},
            "T2starw · 3 T · TE 20 ms · slices 2.0 mm",
        ),
        (
            {"MagneticFieldStrength": None, "EchoTime": "n/a", "sequence": None},
            "unknown · field unknown · TE unknown · slices 3.0 mm",
        ),
    ],
)
def test_a_protocol_in_words(changes: dict[str, Any], words: str) -> None:
    assert protocol_of(scan(**changes)).physics == words


def test_one_protocol_may_be_pooled() -> None:
    found = compare_protocols([scan(site="A"), scan(site="B")])
    assert (found.differences, found.confounded, found.n_protocols) == ((), False, 1)


def test_differences_name_values_and_sites() -> None:
    members = [
        scan(site="A"),
        scan(site="A"),
        scan(site="B", MagneticFieldStrength=1.5, SliceThickness=12.0),
        scan(site="C", MagneticFieldStrength=1.5),
    ]
    found = compare_protocols(members)
    values = {item.title: item.values for item in found.differences}
    assert values == {
        "Field strength": {"1.5 T": ["B", "C"], "3 T": ["A"]},
        "Slice thickness": {"3.0 mm": ["A", "C"], "12.0 mm": ["B"]},
    }
    assert list(values["Slice thickness"]) == ["3.0 mm", "12.0 mm"], "in the order of size"
    assert found.confounded, "each site has a protocol of its own"
    assert found.sites["A"] == {protocol_of(members[0]).physics: 2}


def test_sites_that_share_a_protocol_are_not_confounded() -> None:
    other = {"EchoTime": 0.04}
    members = [scan(site="A"), scan(site="B"), scan(site="B", **other)]
    found = compare_protocols(members)
    assert not found.confounded
    assert found.mixed_sites == ["B"]
    assert not compare_protocols([scan(), scan(**other)]).confounded, "there is one site"


def test_outliers_are_those_of_their_protocol() -> None:
    scans, quality = [], {}
    for number in range(9):
        for kind, field, middle in (("a", 3, 20.0), ("b", 7, 60.0)):
            name = f"sub-{kind}{number}_T2starw"
            scans.append(scan(name, MagneticFieldStrength=field))
            quality[name] = {"preproc_snr": middle + number % 3}
    # 60 is far from the others at 3 T, and usual at 7 T.
    scans.append(scan("sub-a9_T2starw"))
    quality["sub-a9_T2starw"] = {"preproc_snr": 60.0}
    scans.append(scan("sub-c_T2starw", status="failed"))
    (found,) = find_outliers(scans, quality, [Measure("preproc_snr", "SNR")])
    assert (found.scan, found.centre) == ("sub-a9_T2starw", 21.0)
    assert found.z == pytest.approx(39 / 1.4826)


def test_few_scans_or_equal_ones_have_no_outliers() -> None:
    names = [f"sub-{number}_T2starw" for number in range(9)]
    quality = {name: {"snr": float(n)} for n, name in enumerate(names)}
    quality[names[0]]["snr"] = 1000.0
    measure = [Measure("snr", "SNR")]
    assert find_outliers([scan(name) for name in names], quality, measure)
    assert find_outliers([scan(name) for name in names[:7]], quality, measure) == []
    equal = {name: {"snr": 1.0} for name in names} | {names[0]: {"snr": 5.0}}
    assert find_outliers([scan(name) for name in names], equal, measure) == []
