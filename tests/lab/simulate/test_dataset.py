"""The dataset that the simulator writes: valid, complete, true, and the same every time."""

import csv
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import UsageError
from cmbprep.lab.cli import build_parser
from cmbprep.lab.simulate import dataset
from cmbprep.lab.simulate.command import run
from cmbprep.lab.simulate.dataset import simulate_dataset
from cmbprep.lesions import read_lesions

SEED = 1


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """Two people, each in a process of its own."""
    folder = tmp_path_factory.mktemp("simulated") / "bids"
    simulate_dataset(folder, participants=2, seed=SEED, protocols=["demo"], nprocs=2)
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _truth(folder: Path, person: str, name: str) -> Path:
    return folder / "derivatives" / "truth" / person / "anat" / f"{person}_{name}"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_whatever_the_processes(simulated, tmp_path):
    again = tmp_path / "again"
    seen = []
    simulate_dataset(
        again, participants=1, seed=SEED, protocols=["demo"], progress=lambda *a: seen.append(a)
    )
    assert seen == [(1, 1, "01")]
    first, second = _contents(simulated), _contents(again)
    same = [name for name in second if "sub-01" in name]
    assert len(same) > 8
    for name in same:
        assert first[name] == second[name], name


@pytest.mark.slow
def test_images_hold_no_time_and_lie_in_scanner_coordinates(simulated):
    images = sorted(simulated.rglob("*.nii.gz"))
    assert len(images) == 2 * (2 + 4)
    for path in images:
        assert path.read_bytes()[4:8] == b"\0\0\0\0", "time stamp in the gzip header"
        header = nib.load(path).header
        assert int(header["qform_code"]) == int(header["sform_code"]) == 1
        assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-3)
        assert np.isfinite(np.asarray(nib.load(path).dataobj)).all()
    assert gzip.decompress(images[0].read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("part", [".", "derivatives/truth"])
def test_the_validator_finds_no_error(simulated, part):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        found = shutil.which("bids-validator-deno")
        if found is None:
            pytest.skip("bids-validator-deno is not installed")
        validator = Path(found)
    run_ = subprocess.run(
        [validator, "--json", simulated / part], capture_output=True, text=True, check=False
    )
    issues = json.loads(run_.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == []


@pytest.mark.slow
def test_truth_agrees_with_itself_and_with_the_scan(simulated):
    """Masks, labels and tables tell of the same lesions, and the scan is dark there."""
    seen = 0
    for person in ("sub-01", "sub-02"):
        scan = nib.load(simulated / person / "anat" / f"{person}_T2starw.nii.gz")
        data = np.asarray(scan.dataobj, dtype=float)
        labels = nib.load(_truth(simulated, person, "seg-CMB_dseg.nii.gz"))
        mask = np.asarray(nib.load(_truth(simulated, person, "label-CMB_mask.nii.gz")).dataobj)
        values = np.asarray(labels.dataobj)
        np.testing.assert_allclose(labels.affine, scan.affine, atol=1e-5)
        np.testing.assert_array_equal(values > 0, mask > 0)
        lesions = read_lesions(_truth(simulated, person, "seg-CMB_dseg.tsv"))
        assert [lesion.index for lesion in lesions] == sorted(set(values[values > 0].tolist()))
        cell = abs(np.linalg.det(scan.affine[:3, :3]))
        for lesion in lesions:
            seen += 1
            voxels = np.argwhere(values == lesion.index)
            # Partial volumes: the voxels of the mask count for at least half of themselves.
            assert lesion.volume_mm3 > 0.5 * len(voxels) * cell
            assert lesion.diameter_mm == pytest.approx(
                np.cbrt(6 * lesion.volume_mm3 / np.pi), abs=0.01
            )
            centre = nib.affines.apply_affine(scan.affine, voxels).mean(axis=0)
            assert np.linalg.norm(centre - lesion.centre) < 2.0  # a slice is 4 mm thick
            inside = data[values == lesion.index]
            low = np.maximum(voxels.min(axis=0) - 5, 0)
            high = voxels.max(axis=0) + 6
            around = data[low[0] : high[0], low[1] : high[1], voxels[0, 2]]
            assert inside.min() < 0.85 * np.median(around[around > 0.2 * np.median(around)])
            assert lesion.zone is not None
            assert lesion.susceptibility == "paramagnetic"
    assert seen >= 2


@pytest.mark.slow
def test_mimics_are_listed_apart(simulated):
    with open(_truth(simulated, "sub-01", "seg-mimics_dseg.tsv"), newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert rows
    for row in rows:
        assert row["visible"] in ("true", "false")
        assert row["kind"] != "microbleed" or row["visible"] == "false"
        if row["kind"] == "calcification":
            assert float(row["susceptibility_ppm"]) < 0
            assert row["susceptibility"] == "diamagnetic"
    extended = {(row["kind"], row["place"]) for row in rows if row["extent"] == "extended"}
    assert {("vein", "sinus"), ("vein", "cortical"), ("dropout", "brain")} <= extended
    assert {("flow_void", "base"), ("iron_rich_nucleus", "nuclei")} <= extended
    labels = np.asarray(nib.load(_truth(simulated, "sub-01", "seg-mimics_dseg.nii.gz")).dataobj)
    masked = set(np.unique(labels[labels > 0]).tolist())
    assert masked <= {int(row["index"]) for row in rows}
    assert {int(row["index"]) for row in rows if row["extent"] == "extended"} <= masked


@pytest.mark.slow
def test_an_evaluation_says_on_which_structure_a_false_positive_lies(simulated):
    """A mark put on a voxel of each extended structure is traced back to it."""
    from cmbprep.lab.evaluate.evaluation import evaluate
    from cmbprep.lab.evaluate.files import find_scans
    from cmbprep.lab.evaluate.matching import LesionSet, Mark, Rule
    from cmbprep.lab.evaluate.reading import read_lesion_set, read_mimics, with_hidden
    from cmbprep.lab.evaluate.scoring import score_scan

    files = find_scans(simulated / "derivatives" / "truth", None, ("01",)).scans[0]
    mimics, hidden = read_mimics(files)
    truth = with_hidden(read_lesion_set(files), hidden)
    extended = [mark for mark in mimics.marks if mark.extended]
    marks = tuple(Mark(index=k, centre=m.centre) for k, m in enumerate(extended, start=1))
    result = score_scan(truth, LesionSet(marks=marks), Rule(), scan="a", subject="a", mimics=mimics)
    by_index = {mark.index: mark.kind for mark in extended}
    for false in result.false_positives:
        assert false.mimic_index in by_index
        assert false.origin == by_index[false.mimic_index]
    assert len(result.false_positives) > 3
    rows = {row.origin: row for row in evaluate([result]).origins}
    assert rows["vein"].false_positives >= 2
    assert rows["vein"].mimics is None
    assert rows["vein"].mimics_marked is None


@pytest.mark.slow
def test_a_template_coordinate_and_zone_agree(simulated):
    """The zone of the truth is the packaged atlas at the lesion's template coordinate."""
    from cmbprep.templates import load_template
    from cmbprep.zones.schemes import MARS

    atlas = nib.load(load_template().atlas("mars"))
    values = np.asarray(atlas.dataobj)
    zones = {region.index: region.zone for region in MARS.regions}
    agree = []
    for person in ("sub-01", "sub-02"):
        for lesion in read_lesions(_truth(simulated, person, "seg-CMB_dseg.tsv")):
            point = (lesion.x_mni, lesion.y_mni, lesion.z_mni)
            index = np.round(nib.affines.apply_affine(np.linalg.inv(atlas.affine), point))
            zone = zones.get(int(values[tuple(index.astype(int))]))
            agree.append(zone == lesion.zone or bool(lesion.boundary))
    assert all(agree)


@pytest.mark.slow
def test_sidecars_say_what_is_needed(simulated):
    sidecar = json.loads((simulated / "sub-01/anat/sub-01_T2starw.json").read_text())
    for key in ("EchoTime", "MagneticFieldStrength", "Manufacturer", "SliceThickness"):
        assert key in sidecar
    people = (simulated / "participants.tsv").read_text().splitlines()
    assert people[0].split("\t")[:4] == ["participant_id", "age", "sex", "site"]
    assert len(people) == 3
    text = "".join(p.read_text() for p in simulated.rglob("*.json"))
    assert str(Path.cwd()) not in text


def test_bad_arguments_write_nothing(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("here")
    for dest, changes in (
        (full, {}),
        (tmp_path / "new", {"participants": 0}),
        (tmp_path / "new", {"seed": -1}),
        (tmp_path / "new", {"protocols": ["no-such"]}),
        (tmp_path / "new", {"sites": 0}),
    ):
        with pytest.raises(UsageError):
            simulate_dataset(dest, **{"participants": 1, "seed": 0, **changes})
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(task):
        raise RuntimeError("no more")

    monkeypatch.setattr(dataset, "_simulate_person", fail)
    with pytest.raises(RuntimeError):
        simulate_dataset(tmp_path / "new", participants=1, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_the_command_parses_and_lists(capsys, tmp_path):
    parser = build_parser()
    assert run(parser.parse_args(["simulate", str(tmp_path / "x"), "--protocol", "list"])) == 0
    assert "ukb-swi" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--participants"):
        run(parser.parse_args(["simulate", str(tmp_path / "x")]))


@pytest.mark.slow
def test_a_simulated_t1w_gives_back_the_head_it_was_made_from(simulated):
    """A simulated T1w image taken for a real one has the tissues of the packaged head.

    The head was made from the packaged one, so laid onto the template its tissue volumes
    are the same but for the random deformation.
    """
    from cmbprep.lab.simulate.heads import find_heads, load_real_head, load_template_head

    path = find_heads(simulated)[0]
    head, origin = load_real_head(path), load_template_head()
    assert float(head.gm.sum()) == pytest.approx(float(origin.gm.sum()), rel=0.15)
    assert float(head.wm.sum()) == pytest.approx(float(origin.wm.sum()), rel=0.15)
    inside = head.brain_distance < -5
    assert (head.gm + head.wm)[inside].mean() > 0.6
    points = np.random.default_rng(0).uniform((-50, -80, -20), (50, 50, 60), (50, 3))
    np.testing.assert_allclose(head.to_template(head.to_template.inverse(points)), points, atol=0.3)


def test_heads_are_one_a_subject(tmp_path):
    from cmbprep.lab.simulate.heads import find_heads

    for name in ("sub-2/ses-1/anat/sub-2_ses-1", "sub-1/anat/sub-1", "sub-1/anat/sub-1_run-2"):
        path = tmp_path / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = [path.name for path in find_heads(tmp_path)]
    assert names == ["sub-1_T1w.nii.gz", "sub-2_ses-1_T1w.nii.gz"]
    with pytest.raises(UsageError, match="no T1w"):
        find_heads(tmp_path / "sub-1")


@pytest.mark.slow
def test_microbleeds_are_put_into_scans_that_are_there(simulated, tmp_path):
    from cmbprep.lab.simulate.implant_dataset import implant_dataset

    source = tmp_path / "source"
    shutil.copytree(simulated / "sub-01", source / "sub-01")
    shutil.copy(simulated / "dataset_description.json", source)
    dest = tmp_path / "dest"
    implant_dataset(source, dest, seed=4)
    before, after = (
        np.asarray(nib.load(folder / "sub-01/anat/sub-01_T2starw.nii.gz").dataobj, dtype=float)
        for folder in (source, dest)
    )
    labels = np.asarray(nib.load(_truth(dest, "sub-01", "seg-CMB_dseg.nii.gz")).dataobj)
    lesions = read_lesions(_truth(dest, "sub-01", "seg-CMB_dseg.tsv"))
    assert lesions
    for lesion in lesions:
        inside = labels == lesion.index
        assert after[inside].mean() < 0.8 * before[inside].mean()
    far = ~(labels > 0)
    assert np.median(np.abs(after - before)[far]) < 1.0
    assert (dest / "sub-01/anat/sub-01_T1w.nii.gz").exists()
    text = "".join(path.read_text() for path in dest.rglob("*.json"))
    assert str(tmp_path) not in text
