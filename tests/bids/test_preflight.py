"""A dry run reads the voxels of all images and gives the verdicts of the run."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from cmbprep.bids.model import Anatomy, Echo, Scan, Unit
from cmbprep.bids.preflight import Preflight, preflight
from cmbprep.interfaces.echoes import read_echoes
from cmbprep.interfaces.given import ReadGivenT1w
from cmbprep.interfaces.images import ReadMagnitude, ReadT1w
from tests.bidsdata import head, save

NAME = "sub-01_MEGRE"


@pytest.fixture(autouse=True)
def _uncorrected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the bias of images as it is: it takes two seconds and gives no warnings."""
    monkeypatch.setattr(
        "cmbprep.interfaces.images.correct_bias", lambda image: SimpleNamespace(image=image)
    )


def cut_short(path: Path) -> None:
    """Leave the header and some of the voxels in a .nii.gz."""
    content = gzip.compress(gzip.decompress(path.read_bytes()), mtime=0)
    path.write_bytes(content[: len(content) // 2])


def make_scan(folder: Path, times: tuple[float | None, ...] = (0.01, 0.02)) -> Scan:
    echoes = []
    for number, time in enumerate(times, start=1):
        stem = f"sub-01_echo-{number}"
        values = np.random.default_rng(number).uniform(-np.pi, np.pi, (24, 28, 20))
        echoes.append(
            Echo(
                magnitude=save(folder / f"{stem}_part-mag_MEGRE.nii.gz", head(seed=number)),
                phase=save(folder / f"{stem}_part-phase_MEGRE.nii.gz", values),
                echo_time=time,
                phase_units="rad",
            )
        )
    return Scan(entities={"sub": "01"}, suffix="MEGRE", datatype="anat", echoes=tuple(echoes))


def phase_of(scan: Scan, index: int) -> Path:
    path = scan.echoes[index].phase
    assert path is not None
    return path


def dry_run(scan: Scan, *anatomies: Anatomy) -> Preflight:
    anatomy, *spare = anatomies or (None,)
    unit = Unit(
        subject="01",
        session=None,
        scans=(scan,),
        anatomy=anatomy,
        spare_anatomies=tuple(one for one in spare if one is not None),
    )
    return preflight([unit], thorough=True)


def warnings_of_the_run(scan: Scan, folder: Path) -> list[str]:
    """Return the warnings of the two nodes that read the images of a scan."""
    magnitudes = [str(echo.magnitude) for echo in scan.echoes]
    times = [echo.echo_time for echo in scan.echoes]
    node = ReadMagnitude(in_files=magnitudes, echo_times=times).run(cwd=str(folder))
    echoes = read_echoes(
        magnitudes,
        [None if echo.phase is None else str(echo.phase) for echo in scan.echoes],
        [echo.phase_units for echo in scan.echoes],
        times,
        nib.load(magnitudes[0]),
    )
    return list(dict.fromkeys((*node.outputs.warnings, *echoes.warnings)))


def test_sound_images_have_no_warning(tmp_path: Path) -> None:
    checked = dry_run(make_scan(tmp_path))
    assert checked.problems == {} and checked.warnings == {NAME: ()}


def test_a_phase_image_that_is_cut_short_is_a_warning_as_in_the_run(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    cut_short(phase_of(scan, 1))
    checked = dry_run(scan)
    assert checked.problems == {}
    (warning,) = checked.warnings[NAME]
    assert warning.startswith("a phase image is not used") and "cut short" in warning
    assert warnings_of_the_run(scan, tmp_path) == [warning]
    # Without the voxels, nothing is known of it.
    assert preflight(checked.units).warnings[NAME] == ()


def test_values_that_are_no_phase_are_a_warning_as_in_the_run(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    save(phase_of(scan, 0), np.random.default_rng(1).uniform(0, 700, (24, 28, 20)))
    (warning,) = dry_run(scan).warnings[NAME]
    assert "do not look like radians" in warning
    assert warnings_of_the_run(scan, tmp_path) == [warning]


@pytest.mark.parametrize("kind", ["magnitude", "phase"])
def test_odd_voxels_are_a_warning_as_in_the_run(tmp_path: Path, kind: str) -> None:
    scan = make_scan(tmp_path)
    path = getattr(scan.echoes[1], kind)
    values = nib.load(path).get_fdata()
    values[0, 0, 0] = np.nan
    save(path, values)
    (warning,) = dry_run(scan).warnings[NAME]
    assert "1 voxels that are not a number" in warning
    assert warnings_of_the_run(scan, tmp_path) == [warning]


def test_phase_without_an_echo_time_is_a_warning_as_in_the_run(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, (None, 0.02))
    (warning,) = dry_run(scan).warnings[NAME]
    assert warnings_of_the_run(scan, tmp_path) == [warning]


def test_a_magnitude_image_that_is_cut_short_is_a_problem(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    cut_short(scan.echoes[1].magnitude)
    assert "cut short" in dry_run(scan).problems[NAME]


def test_the_next_t1w_image_is_used_for_one_that_is_cut_short(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    first, second = (
        Anatomy(
            path=save(tmp_path / f"sub-01_run-{run}_T1w.nii.gz", head(seed=run)),
            entities={"sub": "01", "run": str(run)},
        )
        for run in (1, 2)
    )
    cut_short(first.path)
    checked = dry_run(scan, first, second)
    (unit,) = checked.units
    assert unit.anatomy == second and checked.problems == {}
    (warning,) = unit.scans[0].warnings
    assert first.path.name in warning and "cut short" in warning
    assert f"{second.path.name} is used instead" in warning
    with pytest.raises(Exception, match="cut short"):
        ReadT1w(in_file=str(first.path)).run(cwd=str(tmp_path))


def test_a_warning_about_a_t1w_image_names_it(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_T1w.nii.gz"
    nib.save(nib.Nifti1Image(head(), np.diag([2.5, 2.5, 2.5, 1])), path)
    expected = (
        "T1w image sub-01_T1w.nii.gz: its header gives no unit of length; 2.5 × 2.5 × 2.5 is "
        "taken to be in mm"
    )
    for node in (ReadT1w, ReadGivenT1w):
        found = node(in_file=str(path)).run(cwd=str(tmp_path)).outputs.warnings
        assert found == [expected]
