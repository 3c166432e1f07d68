"""Figures of merit beside their usual range, and how far the counts can be trusted."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cmbprep.brain import mask_selection
from cmbprep.interfaces.brain import CUT_LIMIT
from cmbprep.registration import quality as registration
from cmbprep.reports.individual import write_subject_report
from cmbprep.reports.quality import Statement, figures_of, load_ranges, summarise, trust
from cmbprep.reports.results import ScanResult, collect_results
from cmbprep.reports.text import load_spec, quality_title
from cmbprep.zones.tally import Tally
from tests.reports.outputtree import Tree, make_lesion
from tests.reports.test_individual import Page


def scan(
    tmp_path: Path, quality: dict[str, Any], *, detection: dict[str, Any] | None = None, **more: Any
) -> ScanResult:
    tree = Tree(tmp_path)
    files = tree.add("sub-1_T2starw", more.pop("lesions", ()), quality=quality)
    content = json.loads(files.sidecar.read_text())
    content["Cmbprep"] |= {"Quality": detection or {}, **more}
    files.sidecar.write_text(json.dumps(content))
    return collect_results(tree.finish())[0].scans[0]


def judged(tmp_path: Path, **quality: Any) -> dict[str, tuple[str, str]]:
    record = scan(tmp_path, quality).preproc
    assert record is not None
    return {item.title: (item.sign, item.verdict) for item in figures_of(record)}


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("snr", 20.0, "usual"),
        ("snr", 60.0, "usual"),
        ("snr", 5.0, "unusual: look at the scan for noise and movement"),
        ("bias_ratio", 1.01, "usual"),
        ("bias_ratio", 3.5, "unusual: look at the figure of the bias correction"),
        ("brain_volume_ml", 700.0, "unusual: look at the figure of the brain mask"),
        ("brain_mask_source", "registration", "usual"),
        ("brain_mask_source", "network", "unusual: look at the figure of the brain mask"),
        ("voxel_size_mm", [1.0, 1.0, 2.0], "no range"),
        ("something_new", 3.0, "no range"),
        ("phase_used", True, "no range"),
    ],
)
def test_a_figure_has_a_sign_and_words(tmp_path: Path, key: str, value: Any, verdict: str) -> None:
    ((sign, said),) = judged(tmp_path, **{key: value}).values()
    assert said == verdict
    assert sign == {"usual": "✓", "no range": "–"}.get(verdict, "!")


def test_the_t1w_image_has_a_range_of_its_own() -> None:
    ranges = load_ranges()["ranges"]
    assert ranges["anatomy.snr"]["low"] != ranges["snr"]["low"]


def test_every_range_has_a_source_and_something_to_look_at() -> None:
    content = load_ranges()
    for key, entry in content["ranges"].items():
        if "none" in entry:
            assert set(entry) == {"none"}, key
            continue
        assert entry["source"] in content["sources"], key
        assert entry["look"], key
        assert {"low", "high", "texts"} & set(entry), key
        assert entry.get("low", 0) <= entry.get("high", float("inf")), key


def test_every_figure_of_a_registration_has_a_title_in_words() -> None:
    names = {field.name for field in fields(registration.RegistrationQuality)} - {"reasons"}
    assert set(load_spec()["registration_quality"]) == names
    for target, words in (("template", "the template"), ("t1w", "the T1w image")):
        titles = {quality_title(f"{target}_registration_{name}") for name in names}
        assert len(titles) == len(names)
        assert all(title.startswith(f"Registration to {words}: ") for title in titles)


def test_limits_are_those_of_the_program() -> None:
    """A limit that changes in the program must change in the pages."""
    ranges = load_ranges()["ranges"]

    def of(key: str) -> tuple[Any, Any]:
        return ranges[key].get("low"), ranges[key].get("high")

    assert of("brain_volume_ml") == (mask_selection.SMALLEST, mask_selection.LARGEST)
    assert of("brain_mask_sureness") == (mask_selection.UNSURE, None)
    assert of("brain_mask_agreement") == (mask_selection.DISAGREEMENT, None)
    assert of("brain_cut_fraction") == (None, CUT_LIMIT)
    template, rigid = "template_registration_", "t1w_registration_"
    assert of(f"{template}brain_volume_ml") == registration.VOLUME_ML
    assert (of(f"{template}jacobian_low")[0], of(f"{template}jacobian_high")[1]) == (
        registration.JACOBIAN
    )
    assert of(f"{rigid}local_shift_mm") == (None, registration.MAX_LOCAL_SHIFT)
    assert of(f"{template}overlap") == (registration.LITTLE_SEEN_IN_TEMPLATE, None)
    assert of(f"{rigid}overlap") == (registration.LITTLE_SEEN, None)
    assert of(f"{template}agreeing") == (registration.FAINT_EVIDENCE, None)
    assert of(f"{rigid}agreeing") == (registration.FAINT_EVIDENCE_RIGID, None)
    for start in (template, rigid):
        assert of(f"{start}covered") == (registration.MIN_COVERED, None)
        assert of(f"{start}folding_fraction") == (None, registration.MAX_FOLDING)
        assert of(f"{start}rotation_deg") == (None, registration.MAX_ROTATION)


def statements(result: ScanResult) -> dict[str, tuple[str, str]]:
    found = trust(result, Tally(result.lesions), "No person has read this scan.")
    return {item.title: (item.level, item.text) for item in found}


def test_a_sound_scan_is_called_so(tmp_path: Path) -> None:
    quality = {
        "brain_mask_source": "registration",
        "brain_mask_sureness": 0.78,
        "brain_mask_agreement": 0.97,
    }
    zones = {"zone_route": "t1w", "zone_verdict": "ok"}
    found = statements(scan(tmp_path, quality, detection=zones, lesions=[make_lesion(1)]))
    assert found == {
        "Read": ("check", "No person has read this scan."),
        "Zones": ("good", "Through the T1w image; the registration is sound"),
        "Brain mask": ("good", "From the registration; two masks agree with a Dice of 0.97"),
        "Acquisition": ("good", "The detector raised no warning"),
        "Lesions": ("good", "All 1 have a high probability"),
    }


def test_doubts_are_named_in_words(tmp_path: Path) -> None:
    quality = {"brain_mask_source": "network", "brain_mask_sureness": 0.5}
    zones = {"zone_route": "template", "zone_verdict": "doubtful"}
    warnings = ["The voxel size is too coarse.", "CMB-001: in a ventricle, no zone"]
    lesions = [make_lesion(1), make_lesion(2, rating="possible")]
    result = scan(tmp_path, quality, detection=zones, lesions=lesions, Warnings=warnings)
    found = statements(result)
    assert {level for level, _ in found.values()} == {"check"}
    assert found["Zones"][1] == "Straight to the template; the registration is doubtful"
    assert found["Brain mask"][1] == "From the network alone"
    assert found["Acquisition"][1] == "1 warning on this scan, under What to check"
    assert found["Lesions"][1] == "1 of 2 have a probability below that of definite ones"


def test_a_failed_registration_is_not_to_be_used(tmp_path: Path) -> None:
    result = scan(tmp_path, {}, detection={"zone_route": "none", "zone_verdict": "failed"})
    found = statements(result)
    assert found["Zones"][0] == "bad"
    assert found["Brain mask"] == ("unknown", "Its quality was not recorded")
    assert found["Lesions"] == ("unknown", "Nothing reached the threshold")


def test_the_worst_is_put_in_front() -> None:
    good, check = (Statement(level, "", level, "") for level in ("good", "check"))
    assert summarise([good]).verdict == "sound"
    assert (summarise([good, check]).level, summarise([good, check]).text) == ("check", "check")
    assert summarise([]).level == "unknown"


def test_the_page_has_no_bare_list_of_figures(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("sub-1_T2starw", quality={"snr": 5.0})
    page = Page(write_subject_report(tree.finish(), "1").read_text())
    assert "Signal to noise 5 ! unusual: look at the scan for noise and movement" in page.text
    assert "10 or more (measured: 10 to 34)" in page.text
    for text in load_ranges()["sources"].values():
        assert text in page.text
