import numpy as np
import pytest

from cmbprep.detectors.base import DetectorInput
from cmbprep.detectors.candidates import Candidates
from cmbprep.detectors.views import COLUMNS, ScanViews, view_scan
from cmbprep.lab.training.generation import plan_tasks
from cmbprep.lab.training.samples import (
    BLEED,
    CALCIFICATION,
    IGNORED,
    NOTHING,
    Samples,
    label_candidates,
    load_labels,
    load_samples,
    save_samples,
)
from cmbprep.lab.training.scans import KnownSpot


@pytest.fixture(scope="module")
def views():
    """A scan whose candidates are replaced by known positions along x."""
    rng = np.random.default_rng(0)
    shape = (60, 60, 20)
    image = (100 + 3 * rng.standard_normal(shape)).astype(np.float32)
    x, y, z = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    image[((x - 30) ** 2 + (y - 30) ** 2) / 4 + (z - 10) ** 2 < 2] = 20
    mask = ((x - 30) / 26) ** 2 + ((y - 30) / 26) ** 2 + ((z - 10) / 9) ** 2 < 1
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = [-10, 5, 7]
    return view_scan(
        DetectorInput(magnitude=image, affine=affine, brain_mask=mask, sequence="T2starw")
    )


def at(views, points):
    """The views with candidates at scanner positions."""
    voxels = np.linalg.inv(views.box_affine) @ np.column_stack([points, np.ones(len(points))]).T
    n = len(points)
    candidates = Candidates(voxels[:3].T, np.full(n, 1.5), np.ones(n))
    return ScanViews(
        views.order, views.scan, views.box, candidates, np.zeros((n, len(COLUMNS))), views.maps
    )


def test_a_bleed_between_two_thick_slices_is_that_of_either(views):
    # Slices of 3 mm: the middle of the bleed is half a slice from both, and their candidates
    # lie in their middles.
    centre = views.box_affine[:3, :3] @ [9, 9, 4.5] + views.box_affine[:3, 3]
    spots = (KnownSpot("microbleed", tuple(centre), 2.2),)
    points = centre + np.array([[0, 0, 1.5], [0, 0, -1.5], [0, 0, 3.0], [0, 0, 4.5], [3.0, 0, 0]])
    target, owner = label_candidates(at(views, points), spots)
    assert target.tolist() == [BLEED, BLEED, BLEED, IGNORED, IGNORED]
    assert owner.tolist() == [0, 0, 0, -1, -1]


def test_candidates_are_what_they_are_at(views):
    spots = (
        KnownSpot("microbleed", (0.0, 0.0, 0.0), 4.0),
        KnownSpot("hidden", (20.0, 0.0, 0.0), 1.0),
        KnownSpot("calcification", (40.0, 0.0, 0.0), 4.0),
        KnownSpot("other", (60.0, 0.0, 0.0), 9.0),
    )
    points = np.array(
        [[1.5, 0, 0], [3.9, 0, 0], [5.0, 0, 0], [20.5, 0, 0], [41.0, 0, 0], [60.0, 0, 0]]
    )
    target, owner = label_candidates(at(views, points), spots)
    # Within 0.6 of the diameter; in the margin of 2 mm beyond; outside; hidden; calcium; else.
    assert target.tolist() == [BLEED, IGNORED, NOTHING, IGNORED, CALCIFICATION, NOTHING]
    assert owner.tolist() == [0, -1, -1, 1, 2, -1]


def test_the_nearer_of_two_spots_owns_a_candidate(views):
    spots = (
        KnownSpot("microbleed", (0.0, 0.0, 0.0), 8.0),
        KnownSpot("calcification", (5.0, 0.0, 0.0), 8.0),
    )
    target, owner = label_candidates(at(views, np.array([[2.0, 0, 0], [3.0, 0, 0]])), spots)
    assert target.tolist() == [BLEED, CALCIFICATION]
    assert owner.tolist() == [0, 1]


def test_the_bleed_of_a_scan_is_a_candidate(views):
    spot = KnownSpot("microbleed", (20.0, 35.0, 37.0), 3.0)
    target, _ = label_candidates(views, (spot,))
    assert np.count_nonzero(target == BLEED) >= 1


def test_where_it_lies_is_described_alike_left_and_right(views):
    place = {name: views.table[:, COLUMNS.index(name)] for name in ("across", "ahead", "above")}
    assert (place["across"] >= 0).all()
    assert np.abs(place["ahead"]).max() < 1
    assert np.abs(place["above"]).max() < 1


def test_samples_are_kept_whole(tmp_path):
    def made(n, scan):
        rng = np.random.default_rng(n)
        return Samples(
            near=rng.random((n, 2, 3, 3)).astype(np.float16),
            across=rng.random((n, 2, 2, 3, 3)).astype(np.float16),
            wide=rng.random((n, 2, 3, 3)).astype(np.float16),
            table=rng.random((n, 4)).astype(np.float32),
            target=np.zeros(n, np.int8),
            spot=np.full(n, -1, np.int32),
            scan=np.full(n, scan, np.int32),
            diameter=np.zeros(n, np.float32),
        )

    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    save_samples(made(3, 0), paths[0], {"visible": 1})
    save_samples(made(5, 0), paths[1], {"visible": 0})
    joined = load_samples(paths)
    assert joined.scan.tolist() == [0] * 3 + [1] * 5
    assert np.array_equal(joined.near[3:], made(5, 0).near)
    known = load_labels(paths)
    assert not hasattr(known, "near")
    assert np.array_equal(known.table, joined.table)
    assert known.scan.tolist() == joined.scan.tolist()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.npz", "b.json", "b.npz"]


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        Samples(*[np.zeros(2)] * 7, np.zeros(3))


def test_any_first_part_of_the_plan_has_all_roles(tmp_path):
    tasks = plan_tasks(tmp_path, {"train": 30, "tune": 10}, {"train": 5}, tmp_path, ("a", "b"))
    assert len(tasks) == 50
    assert len({task.stem for task in tasks}) == 50
    some = tasks[:20]
    assert sum(task.role == "tune" for task in some) == 4
    assert sum(task.subject == "a" for task in some) == 2
