import nibabel as nib
import numpy as np
import pytest

from cmbprep.brain.network import BOX, SPACING
from cmbprep.errors import UsageError
from cmbprep.lab.cli import build_parser
from cmbprep.lab.simulate.tissue import TISSUES
from cmbprep.lab.training.brain.contrasts import draw_scan
from cmbprep.lab.training.brain.heads import TrainingHead, load_head, make_heads, real_head
from tests.registration.headphantom import brain, grid_affine, head

SHAPE = (80, 96, 80)


@pytest.fixture(scope="module")
def training_heads():
    """A head of each kind: a ball of grey matter in a ball of fat."""
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    away = np.linalg.norm((index - np.array(SHAPE) / 2) * 2.0, axis=-1)
    distance = np.clip(60 - away, -60, 60).astype(np.float32)
    fractions = np.zeros((len(TISSUES), *SHAPE), np.uint8)
    fractions[list(TISSUES).index("gm")][away < 60] = 255
    fractions[list(TISSUES).index("fat")][(away >= 60) & (away < 72)] = 255
    image = np.where(away < 60, 0.7, np.where(away < 72, 1.0, 0.0)).astype(np.float32)
    return TrainingHead(distance, fractions=fractions), TrainingHead(distance, image=image)


def test_scans_are_drawn_within_bounds_and_the_same_for_a_seed(training_heads):
    for number in range(6):
        one, again = (
            draw_scan(training_heads[number % 2], np.random.default_rng([5, number]))
            for _ in range(2)
        )
        assert np.array_equal(one.channels, again.channels)
        channels, inside = one.channels, one.channels[1] > 0
        assert channels.dtype == np.float32
        assert np.isfinite(channels).all()
        assert channels.shape[1:] == one.distance.shape
        assert all(n % 16 == 0 and n <= m for n, m in zip(channels.shape[1:], BOX, strict=True))
        assert channels[0].min() >= 0
        assert channels[0].max() <= 1.8
        assert (channels[0][~inside] == 0).all()


def test_the_label_moves_with_the_head(training_heads):
    """Where image and label are not blurred apart, the ball's signal ends where its label does."""
    inner, outer = [], []
    for number in range(10):
        scan = draw_scan(training_heads[0], np.random.default_rng([6, number]))
        shown = scan.channels[1] > 0
        inner.append(scan.channels[0][shown & (scan.distance > 4)].mean())
        outer.append(scan.channels[0][shown & (scan.distance < -20)].mean())
    assert np.nanmedian(inner) > 2 * np.nanmedian(outer)


def test_a_real_head_keeps_its_brain(tmp_path):
    shape = (64, 74, 64)
    affine = grid_affine(shape, (3.0, 3.0, 3.0), codes="LPS")
    image, mask = head(shape, affine), brain(shape, affine)
    made = real_head(image, mask)
    volume = np.count_nonzero(made.distance > 0) * SPACING**3
    assert volume == pytest.approx(np.count_nonzero(np.asarray(mask.dataobj)) * 27.0, rel=0.03)
    nib.save(image, tmp_path / "a_image.nii.gz")
    nib.save(mask, tmp_path / "a_mask.nii.gz")
    (path,) = make_heads(
        tmp_path / "heads", 0, [(tmp_path / "a_image.nii.gz", tmp_path / "a_mask.nii.gz")]
    )
    kept = load_head(path)
    assert np.allclose(kept.distance, made.distance, atol=0.05)
    assert kept.image is not None
    near = affine.copy()
    near[0, 3] += 0.01
    made = real_head(image, nib.Nifti1Image(np.asarray(mask.dataobj), near))
    assert np.allclose(made.distance, kept.distance, atol=0.05)
    with pytest.raises(ValueError, match="not on the grid of its image: corners up to"):
        real_head(image, nib.Nifti1Image(np.asarray(mask.dataobj), np.eye(4)))


def test_a_head_has_fractions_or_an_image():
    with pytest.raises(ValueError, match="either"):
        TrainingHead(np.zeros((2, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "0"], "one head"),
        (["--masked", "nothing_image.nii.gz"], "no image"),
        (["--source", "somewhere"], "--source"),
    ],
    ids=["no heads", "no image", "no image for a source"],
)
def test_wrong_arguments_are_told_before_anything_is_made(tmp_path, arguments, message):
    dest = tmp_path / "dest"
    parsed = build_parser().parse_args(["train", str(dest), "--model", "brain", *arguments])
    with pytest.raises(UsageError, match=message):
        parsed.run(parsed)
    assert not dest.exists()
