"""Direction, order and handedness of spatial transforms, against known maps and ANTs."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cmbprep.errors import CmbprepError
from cmbprep.spatial.grids import Grid, crop_grid, resample_to_grid, working_grid
from cmbprep.spatial.transforms import (
    DisplacementMap,
    LinearMap,
    apply_transforms,
    compose_on_grid,
    jacobian_determinant,
    map_points,
    read_transform,
    write_transform,
)


def oblique(flip=(1, 1, 1), spacing=(2.0, 2.5, 3.0), origin=(-31.0, -40.0, -22.0)):
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", (12, -20, 31), degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(np.array(flip) * spacing)
    affine[:3, 3] = origin
    return affine


def rigid(degrees=(10, -25, 15), shift=(12.0, -7.0, 5.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return LinearMap(matrix)


def smooth_field(shape=(20, 22, 18), affine=None, size=4.0, seed=3):
    affine = oblique(spacing=(6.0, 6.0, 6.0), origin=(-60, -70, -50)) if affine is None else affine
    points = Grid(shape, affine).points()
    waves = np.random.default_rng(seed).normal(scale=0.03, size=(3, 3))
    field = size * np.sin(points @ waves + [0.3, 1.1, 2.0])
    return DisplacementMap(field.reshape(*shape, 3).astype(np.float32), affine)


def blob(point, shape=(40, 42, 30), affine=None, width=5.0):
    affine = oblique() if affine is None else affine
    distance = np.linalg.norm(Grid(shape, affine).points() - point, axis=1).reshape(shape)
    return nib.Nifti1Image(np.exp(-((distance / width) ** 2)).astype(np.float32), affine)


def centre_of_mass(image):
    data = np.asarray(image.dataobj, dtype=np.float64)
    points = Grid(image.shape, image.affine).points()
    return data.ravel() @ points / data.sum()


class TestOnItsOwnGrid:
    """A field that is sampled on the very grid is read off; elsewhere it is interpolated."""

    def test_what_is_read_off_is_what_interpolation_gives(self):
        field = smooth_field()
        same = compose_on_grid((field,), field.grid)
        np.testing.assert_allclose(same.displacement, field.displacement, atol=1e-5)
        on = compose_on_grid((field, rigid()), field.grid)
        points = field.grid.points()
        expected = map_points(points, (field, rigid()))
        found = points + on.displacement.reshape(-1, 3)
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_a_part_of_the_grid_reads_its_own_part(self, monkeypatch):
        from cmbprep.spatial import transforms

        field = smooth_field()
        image = blob(field.grid.points().mean(axis=0), field.grid.shape, field.affine, width=30)
        whole = np.asarray(apply_transforms(image, field.grid, (field,)).dataobj)
        monkeypatch.setattr(transforms, "_CHUNK", 1)  # one slice of the first axis at a time
        parts = np.asarray(apply_transforms(image, field.grid, (field,)).dataobj)
        np.testing.assert_array_equal(parts, whole)
        moved = map_points(field.grid.points(), (field, LinearMap(np.linalg.inv(field.affine))))
        direct = ndimage.map_coordinates(image.get_fdata(), moved.T, order=1, cval=0.0)
        np.testing.assert_allclose(whole.ravel(), direct, atol=1e-4)

    @pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, -1)])
    @pytest.mark.parametrize("start", [(3, 4, 5), (-4, 2, -1)])
    def test_a_grid_whose_voxels_fall_on_its_own_is_read_off(self, flip, start, monkeypatch):
        field = smooth_field(affine=oblique(flip, (6.0, 6.0, 6.0), (-60, -70, -50)))
        # Larger than the field on one side for a negative start; beyond it, the nearest holds.
        grid = crop_grid(field.grid, start, (19, 15, 17))
        points = grid.points()
        interpolated = map_points(points, (field,)) - points
        monkeypatch.setattr(ndimage, "map_coordinates", None)
        found = compose_on_grid((field,), grid).displacement
        np.testing.assert_allclose(found.reshape(-1, 3), interpolated, atol=1e-4)

    def test_single_precision_of_a_file_is_no_matter(self):
        grid = Grid((97, 115, 97), oblique())
        stored = Grid(grid.shape, grid.affine.astype(np.float32))
        assert crop_grid(grid, (7, 0, -2), (50, 60, 70)).offset_in(stored) == (7, 0, -2)

    @pytest.mark.parametrize(
        "other",
        [
            np.diag([-1.0, 1, 1, 1]),
            np.diag([1.001, 1, 1, 1]),
            np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        ],
        ids=["mirrored", "another voxel size", "another order of axes"],
    )
    def test_voxels_that_do_not_fall_on_voxels_have_no_offset(self, other):
        grid = Grid((40, 42, 30), oblique(spacing=(2.0, 2.0, 2.0)))
        assert Grid(grid.shape, grid.affine @ other).offset_in(grid) is None

    def test_a_grid_beside_it_is_interpolated(self):
        field = smooth_field()
        beside = field.affine.copy()
        beside[:3, 3] += 0.5 * beside[:3, 0]
        found = compose_on_grid((field,), Grid(field.grid.shape, beside)).displacement
        middle = (field.displacement[:-1] + field.displacement[1:]) / 2
        np.testing.assert_allclose(found[:-1], middle, atol=1e-4)


class TestDirection:
    @pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
    def test_a_blob_lands_where_its_centre_maps_to(self, flip):
        affine = oblique(flip)
        grid = Grid((40, 42, 30), affine)
        middle = grid.points().mean(axis=0)
        moving = blob(np.add(middle, (6, -4, 5)), affine=affine)
        to_moving = rigid((5, -8, 10), (3, 4, -6))
        # Turn about the middle, so the blob stays in view.
        shift = np.eye(4)
        shift[:3, 3] = middle
        to_moving = LinearMap(shift @ to_moving.matrix @ np.linalg.inv(shift))
        result = apply_transforms(moving, grid, (to_moving,))
        expected = map_points([np.add(middle, (6, -4, 5))], (to_moving.inverse(),))[0]
        assert np.allclose(centre_of_mass(result), expected, atol=0.3)

    def test_order_of_a_chain_is_the_order_of_passage(self):
        first, second = rigid(), rigid((0, 40, 0), (0, 0, 30))
        point = np.array([[3.0, 8.0, -2.0]])
        assert np.allclose(map_points(point, (first, second)), second(first(point)))
        assert not np.allclose(
            map_points(point, (first, second)), map_points(point, (second, first))
        )

    def test_there_and_back(self):
        points = np.random.default_rng(0).normal(scale=40, size=(50, 3))
        assert np.allclose(map_points(points, (rigid(), rigid().inverse())), points)

    def test_resampling_through_a_chain_is_resampling_through_its_composite(self):
        moving = blob((20.0, 30.0, 10.0))
        reference = working_grid((40, 42, 30), oblique(), 3.0)
        chain = (rigid((3, 2, -4), (2, -3, 1)), smooth_field())
        direct = apply_transforms(moving, reference, chain)
        composite = apply_transforms(moving, reference, (compose_on_grid(chain, reference),))
        assert np.abs(direct.get_fdata() - composite.get_fdata()).max() < 1e-4

    def test_labels_keep_their_values_and_type(self):
        labels = np.zeros((10, 10, 10), dtype=np.int16)
        labels[3:7, 3:7, 3:7] = 517
        image = nib.Nifti1Image(labels, np.eye(4))
        result = apply_transforms(
            image,
            Grid((10, 10, 10), np.eye(4)),
            (rigid((0, 0, 5), (0, 0, 0)),),
            interpolation="nearest",
        )
        assert result.get_data_dtype() == np.int16
        assert set(np.unique(result.dataobj)) == {0, 517}


class TestAgainstAnts:
    """ANTs reads our files and sees the same maps."""

    def test_points(self, tmp_path):
        ants = pytest.importorskip("ants")
        pandas = pytest.importorskip("pandas")
        chain = (rigid(), smooth_field())
        write_transform(chain[0], tmp_path / "linear.txt")
        write_transform(chain[1], tmp_path / "field.nii.gz")
        # Within the field, beyond which ITK takes the displacement to be nothing.
        middle = chain[1].grid.points().mean(axis=0)
        wanted = middle + np.random.default_rng(1).uniform(-20, 20, size=(20, 3))
        points = map_points(wanted, (chain[0].inverse(),))
        frame = pandas.DataFrame(points * [-1, -1, 1], columns=["x", "y", "z"])
        # ANTs lists transforms in the order in which points pass through them.
        mapped = ants.apply_transforms_to_points(
            3, frame, [str(tmp_path / "linear.txt"), str(tmp_path / "field.nii.gz")]
        )
        theirs = mapped[["x", "y", "z"]].to_numpy() * [-1, -1, 1]
        assert np.abs(theirs - map_points(points, chain)).max() < 1e-3

    def test_images(self, tmp_path):
        ants = pytest.importorskip("ants")
        middle = smooth_field().grid.points().mean(axis=0)
        flipped = oblique((-1, 1, 1))
        flipped[:3, 3] += middle - flipped[:3, :3] @ [20, 21, 15] - flipped[:3, 3]
        moving = blob(middle, affine=flipped)
        straight = oblique()
        straight[:3, 3] += middle - straight[:3, :3] @ [20, 21, 15] - straight[:3, 3]
        reference = blob(middle, affine=straight)
        chain = (rigid((3, 2, -4), (2, -3, 1)), smooth_field())
        ours = apply_transforms(moving, Grid(reference.shape, reference.affine), chain)
        for name, image in (("moving", moving), ("reference", reference)):
            nib.save(image, tmp_path / f"{name}.nii")
        write_transform(chain[0], tmp_path / "linear.txt")
        write_transform(chain[1], tmp_path / "field.nii.gz")
        theirs = ants.apply_transforms(
            ants.image_read(str(tmp_path / "reference.nii")),
            ants.image_read(str(tmp_path / "moving.nii")),
            [str(tmp_path / "linear.txt"), str(tmp_path / "field.nii.gz")],
        )
        inside = ours.get_fdata() > 0.01
        assert inside.sum() > 50
        assert np.abs(theirs.numpy() - ours.get_fdata())[inside].max() < 5e-3

    def test_matlab_files_of_ants_are_read(self, tmp_path):
        ants = pytest.importorskip("ants")
        made = ants.create_ants_transform(
            transform_type="AffineTransform",
            matrix=rigid().matrix[:3, :3],
            translation=(1.0, 2.0, 3.0),
            center=(10.0, -5.0, 7.0),
        )
        ants.write_transform(made, str(tmp_path / "a.mat"))
        ours = read_transform(tmp_path / "a.mat")
        for point in np.random.default_rng(0).normal(scale=50, size=(5, 3)):
            lps = np.array(made.apply_to_point(tuple(point * [-1, -1, 1])))
            assert np.allclose(ours(point[None])[0], lps * [-1, -1, 1], atol=1e-4)


class TestFiles:
    def test_linear_round_trip_is_exact(self, tmp_path):
        write_transform(rigid(), tmp_path / "a.txt")
        assert np.array_equal(read_transform(tmp_path / "a.txt").matrix, rigid().matrix)

    def test_field_round_trip(self, tmp_path):
        field = smooth_field()
        write_transform(field, tmp_path / "a.nii.gz")
        again = read_transform(tmp_path / "a.nii.gz")
        assert np.array_equal(again.displacement, field.displacement)
        assert np.allclose(again.affine, field.affine, atol=1e-5)

    def test_same_map_same_bytes_whatever_the_name(self, tmp_path):
        write_transform(smooth_field(), tmp_path / "a.nii.gz")
        write_transform(smooth_field(), tmp_path / "b.nii.gz")
        content = (tmp_path / "a.nii.gz").read_bytes()
        assert content == (tmp_path / "b.nii.gz").read_bytes()
        assert content[4:8] == b"\0\0\0\0"  # no time in the gzip header

    @pytest.mark.parametrize("name", ["a.txt", "a.mat", "a.nii.gz"])
    def test_damaged_file_is_named(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(CmbprepError, match=name):
            read_transform(tmp_path / name)

    def test_wrong_ending_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"\.nii\.gz"):
            write_transform(smooth_field(), tmp_path / "a.txt")
        with pytest.raises(ValueError, match="txt"):
            write_transform(rigid(), tmp_path / "a.nii.gz")


class TestJacobian:
    @pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1)])
    def test_of_a_scaling_on_an_oblique_grid(self, flip):
        scaling = LinearMap(np.diag([1.1, 0.9, 1.3, 1.0]))
        field = compose_on_grid((scaling,), Grid((8, 9, 7), oblique(flip)))
        assert np.allclose(jacobian_determinant(field), 1.1 * 0.9 * 1.3, atol=1e-4)

    def test_of_any_map_is_the_determinant_of_its_gradient(self):
        field = smooth_field(affine=oblique((1, -1, 1), (3.0, 4.0, 5.0)), size=12.0)
        gradient = np.stack(
            [np.stack(np.gradient(field.displacement[..., c].astype(float)), -1) for c in range(3)],
            axis=-2,
        )
        expected = np.linalg.det(gradient @ np.linalg.inv(field.affine[:3, :3]) + np.eye(3))
        assert expected.std() > 0.1
        np.testing.assert_allclose(jacobian_determinant(field), expected, atol=1e-4)

    def test_a_fold_is_negative(self):
        x = Grid((20, 5, 5), np.eye(4)).points()[:, 0].reshape(20, 5, 5)
        displacement = np.zeros((20, 5, 5, 3), dtype=np.float32)
        displacement[..., 0] = np.where(x > 10, -2.0 * (x - 10), 0.0)
        assert jacobian_determinant(DisplacementMap(displacement, np.eye(4)))[15, 2, 2] < 0


class TestGrids:
    def test_working_grid_keeps_thick_slices_and_covers_the_field_of_view(self):
        affine = oblique((-1, 1, 1), spacing=(0.5, 0.5, 6.0))
        grid = working_grid((200, 220, 20), affine, 2.0)
        assert np.allclose(grid.spacing, (2.0, 2.0, 6.0))
        assert np.allclose(grid.shape, (50, 55, 20))
        assert np.allclose(
            grid.points().mean(axis=0), Grid((200, 220, 20), affine).points().mean(axis=0)
        )

    def test_working_grid_has_no_shear(self):
        sheared = oblique()
        sheared[:3, 1] += 0.2 * sheared[:3, 0]
        grid = working_grid((20, 20, 20), sheared, 4.0)
        axes = grid.affine[:3, :3] / grid.spacing
        assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)

    def test_coarse_copies_keep_the_mean_of_fine_texture(self):
        checks = np.indices((40, 40, 40)).sum(axis=0) % 2 * 100.0
        coarse = resample_to_grid(checks, np.eye(4), working_grid((40, 40, 40), np.eye(4), 4.0))
        assert np.abs(coarse[2:-2, 2:-2, 2:-2] - 50).max() < 2

    def test_bad_affines_are_refused(self):
        with pytest.raises(ValueError, match="inverted"):
            Grid((2, 2, 2), np.diag([1.0, 0.0, 1.0, 1.0]))
        with pytest.raises(ValueError, match="finite"):
            Grid((2, 2, 2), np.full((4, 4), np.nan))
