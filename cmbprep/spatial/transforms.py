"""Spatial transforms: maps of points, chains of them, images through them, and their files.

A :data:`PointMap` takes points of one space to points of another, in RAS+ millimetres. A
chain is a sequence of maps in the order in which points pass through them.

Points and images go opposite ways. To bring a *moving* image onto a *reference* grid one
asks, for each voxel of the reference, where it lies in the moving image: that needs the
map of points from reference to moving. So the file that BIDS calls
``from-scan_to-T1w_mode-image_xfm`` holds the map of points from T1w to scan, the way ITK
and ANTs have it, and the lesions of a scan reach the template through the maps in the
files ``from-T1w_to-scan`` and then ``from-template_to-T1w``.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from cmbprep.errors import CmbprepError
from cmbprep.spatial.grids import Grid, map_in_threads

#: Between RAS+ (nibabel) and LPS+ (ITK); its own inverse.
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

#: Spline order of each interpolation.
INTERPOLATIONS = {"nearest": 0, "linear": 1, "cubic": 3}

# Points that a thread handles at once: bounds memory at about 100 MB whatever the image.
_CHUNK = 500_000


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Rigid or affine map of points.

    Parameters
    ----------
    matrix : array of shape (4, 4)
        Takes RAS+ mm of the first space to RAS+ mm of the second.
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError("a linear map needs a finite 4x4 matrix")
        if not np.allclose(matrix[3], (0, 0, 0, 1)):
            raise ValueError("the last row of a linear map is 0 0 0 1")
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise ValueError("the matrix of a linear map cannot be inverted")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take points, shape (n, 3), RAS+ mm, to the second space."""
        return points @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def inverse(self) -> LinearMap:
        """Return the map from the second space to the first."""
        return LinearMap(np.asarray(np.linalg.inv(self.matrix), dtype=np.float64))


@dataclass(frozen=True, eq=False)
class DisplacementMap:
    """Map of points by a displacement that is sampled on a grid.

    Parameters
    ----------
    displacement : array of shape (i, j, k, 3)
        What to add to a point of the first space, mm along x, y, z of RAS+. Linear
        between voxels; beyond the grid the nearest voxel's holds.
    affine : array of shape (4, 4)
        Voxel to RAS+ mm of the first space.
    """

    displacement: NDArray[np.float32]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        field = np.asarray(self.displacement, dtype=np.float32)
        if field.ndim != 4 or field.shape[3] != 3:
            raise ValueError(f"a displacement field has shape (i, j, k, 3), not {field.shape}")
        if not np.isfinite(field).all():
            raise ValueError("the displacement field has values that are not finite")
        grid = Grid(field.shape[:3], self.affine)
        object.__setattr__(self, "displacement", field)
        object.__setattr__(self, "affine", grid.affine)

    @property
    def grid(self) -> Grid:
        """Where the displacement is sampled."""
        return Grid(self.displacement.shape[:3], self.affine)

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take points, shape (n, 3), RAS+ mm, to the second space."""
        to_voxel = np.linalg.inv(self.affine)
        voxels = (points @ to_voxel[:3, :3].T + to_voxel[:3, 3]).T
        moved = np.array(points, dtype=np.float64)
        for axis in range(3):
            moved[:, axis] += ndimage.map_coordinates(
                self.displacement[..., axis], voxels, order=1, mode="nearest"
            )
        return moved


PointMap = LinearMap | DisplacementMap


def map_points(points: ArrayLike, chain: Iterable[PointMap]) -> NDArray[np.float64]:
    """Take points through a chain of maps.

    Parameters
    ----------
    points : array of shape (n, 3)
        RAS+ mm in the first space of the chain.
    chain
        Maps in the order in which the points pass through them.

    Returns
    -------
    array of shape (n, 3)
        RAS+ mm in the last space of the chain.
    """
    current = np.array(points, dtype=np.float64).reshape(-1, 3)
    for transform in chain:
        current = transform(current)
    return current


def apply_transforms(
    moving: SpatialImage,
    reference: Grid,
    chain: Sequence[PointMap],
    *,
    interpolation: str = "linear",
    fill: float = 0.0,
) -> nib.Nifti1Image:
    """Resample an image onto a grid in another space.

    Parameters
    ----------
    moving
        Three-dimensional image; its data type is kept for ``nearest``, else float32.
    reference
        Grid of the result.
    chain
        Maps of *points* from the space of ``reference`` to the space of ``moving``.
    interpolation
        ``nearest`` (labels and masks), ``linear`` or ``cubic``.
    fill
        Value of what lies outside the moving image.
    """
    order = INTERPOLATIONS[interpolation]
    data = np.asanyarray(moving.dataobj)
    if order > 0:
        data = np.asarray(data, dtype=np.float32)
    to_voxel = LinearMap(np.linalg.inv(moving.affine))
    # Splines are filtered once here, not for each chunk of points.
    coefficients = ndimage.spline_filter(data, order, output=np.float32) if order > 1 else data
    result = np.empty(reference.shape, dtype=data.dtype)

    def fill_in(part: slice) -> None:
        voxels = _grid_through((*chain, to_voxel), reference, part).T
        values = ndimage.map_coordinates(
            coefficients, voxels, order=order, mode="constant", cval=fill, prefilter=False
        )
        result[part] = values.reshape(-1, *reference.shape[1:])

    map_in_threads(fill_in, _slabs(reference))
    return nib.Nifti1Image(result, reference.affine)


def compose_on_grid(chain: Sequence[PointMap], grid: Grid) -> DisplacementMap:
    """Sample a chain of maps on a grid in its first space, as one displacement field."""
    displacement = np.empty((*grid.shape, 3), dtype=np.float32)

    def fill_in(part: slice) -> None:
        moved = _grid_through(chain, grid, part) - grid.points(part)
        displacement[part] = moved.reshape(-1, *grid.shape[1:], 3)

    map_in_threads(fill_in, _slabs(grid))
    return DisplacementMap(displacement, grid.affine)


def _slabs(grid: Grid) -> list[slice]:
    """Cut a grid's first axis into parts of at most :data:`_CHUNK` voxels."""
    step = max(1, _CHUNK // (grid.shape[1] * grid.shape[2]))
    return [slice(start, start + step) for start in range(0, grid.shape[0], step)]


def _grid_through(
    chain: Sequence[PointMap], grid: Grid, part: slice = slice(None)
) -> NDArray[np.float64]:
    """Take the voxel centres of a grid, or of a part of its first axis, through a chain.

    A displacement that is sampled at these very points is read off, not interpolated.
    """
    points = grid.points(part)
    first = chain[0] if chain else None
    if isinstance(first, DisplacementMap):
        offset = grid.offset_in(first.grid)
        if offset is not None:
            # Beyond the field the nearest voxel's holds, as it does between voxels.
            index = [
                np.clip(np.arange(n) + o, 0, size - 1)
                for n, o, size in zip(grid.shape, offset, first.grid.shape, strict=True)
            ]
            index[0] = index[0][part]
            points += first.displacement[np.ix_(*index)].reshape(-1, 3)
            chain = chain[1:]
    return map_points(points, chain)


def jacobian_determinant(transform: DisplacementMap) -> NDArray[np.float32]:
    """Local change of volume under a map, on the voxels of its grid.

    A value of 1 keeps the volume, 2 doubles it; at 0 and below the map folds.
    """
    to_voxel = np.linalg.inv(transform.affine[:3, :3]).astype(np.float32)
    rows = []
    for c in range(3):
        # d(displacement)/d(voxel), then to d/d(mm), and the point itself.
        along = np.gradient(transform.displacement[..., c])
        row = [sum(along[i] * to_voxel[i, j] for i in range(3)) for j in range(3)]
        row[c] = row[c] + np.float32(1)
        rows.append(row)
    # Written out: LAPACK takes three times as long, one voxel after the other.
    (a, b, c), (d, e, f), (g, h, i) = rows
    found = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return np.asarray(found, dtype=np.float32)


def write_transform(transform: PointMap, path: Path) -> None:
    """Write a map as a file that ITK and ANTs read; the same map gives the same bytes.

    A linear map becomes an ITK text file (``.txt``, or ``.tfm``), a displacement map a
    NIfTI vector image (``.nii.gz``) in float32. Both are in LPS, as ITK wants.

    Raises
    ------
    ValueError
        If the ending of the name does not fit the kind of map.
    """
    if isinstance(transform, LinearMap):
        if path.suffix not in (".txt", ".tfm"):
            raise ValueError(f"a linear transform is written as .txt or .tfm, not as {path.name}")
        path.write_text(_format_itk(LPS @ transform.matrix @ LPS), encoding="ascii")
        return
    if not path.name.endswith(".nii.gz"):
        raise ValueError(f"a displacement field is written as .nii.gz, not as {path.name}")
    vectors = transform.displacement * np.array([-1, -1, 1], dtype=np.float32)
    # ITK keeps the components of a vector on the fifth axis.
    image = nib.Nifti1Image(vectors[:, :, :, np.newaxis, :], transform.affine)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    buffer = io.BytesIO()
    # No name and no time in the gzip header: bytes depend on the content only.
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as stream:
        stream.write(image.to_bytes())
    path.write_bytes(buffer.getvalue())


def read_transform(path: Path) -> PointMap:
    """Read a map from an ITK text file, an ANTs ``.mat`` file or a displacement field.

    Raises
    ------
    CmbprepError
        If the file is not one of these, or is damaged.
    """
    try:
        if path.name.endswith((".nii.gz", ".nii")):
            return _read_displacement(path)
        if path.suffix == ".mat":
            return _read_itk_matlab(path)
        return _parse_itk(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise CmbprepError(
            f"this is not a transform that can be read ({error})",
            path=path,
            hint="ITK text, ANTs .mat and NIfTI displacement fields are understood",
        ) from error


def _format_itk(matrix: NDArray[np.float64]) -> str:
    numbers = " ".join(repr(float(v)) for v in (*matrix[:3, :3].ravel(), *matrix[:3, 3]))
    return (
        "#Insight Transform File V1.0\n#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )


def _linear_from_itk(parameters: NDArray[np.float64], centre: NDArray[np.float64]) -> LinearMap:
    """Return x -> M (x - c) + t + c in RAS from ITK's 9 + 3 parameters and centre in LPS."""
    if parameters.size != 12 or centre.size != 3:
        raise ValueError("an affine transform has 12 parameters and a centre of 3")
    matrix = parameters[:9].reshape(3, 3)
    shift = parameters[9:] + centre - matrix @ centre
    return LinearMap(LPS @ from_matvec(matrix, shift) @ LPS)


def _parse_itk(text: str) -> LinearMap:
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator and not line.startswith("#"):
            if key in fields:
                raise ValueError("it holds more than one transform")
            fields[key] = value.strip()
    if not fields.get("Transform", "").startswith(("AffineTransform", "MatrixOffsetTransform")):
        raise ValueError(f"its kind is {fields.get('Transform', 'not said')!r}")
    return _linear_from_itk(
        np.array(fields["Parameters"].split(), dtype=np.float64),
        np.array(fields["FixedParameters"].split(), dtype=np.float64),
    )


def _read_itk_matlab(path: Path) -> LinearMap:
    from scipy.io import loadmat

    content = loadmat(str(path))
    names = [name for name in content if name.startswith(("Affine", "MatrixOffset", "Euler"))]
    if len(names) != 1 or not names[0].startswith(("Affine", "MatrixOffset")):
        raise ValueError("it does not hold one affine transform")
    return _linear_from_itk(
        np.asarray(content[names[0]], dtype=np.float64).ravel(),
        np.asarray(content["fixed"], dtype=np.float64).ravel(),
    )


def _read_displacement(path: Path) -> DisplacementMap:
    image = nib.Nifti1Image.from_filename(path)
    vectors = np.asarray(image.dataobj, dtype=np.float32)
    if vectors.ndim != 5 or vectors.shape[3:] != (1, 3):
        raise ValueError(f"a displacement field has shape (i, j, k, 1, 3), not {vectors.shape}")
    vectors = vectors[:, :, :, 0, :] * np.array([-1, -1, 1], dtype=np.float32)
    return DisplacementMap(vectors, image.affine)
