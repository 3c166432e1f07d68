"""The networks of the average: fitted once, and again when what they are made from changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cmbprep.detectors.patches import ACROSS_SHAPE, NEAR_SHAPE, WIDE_SHAPE
from cmbprep.detectors.views import COLUMNS
from cmbprep.lab.training.mining import FitOptions
from cmbprep.lab.training.samples import BLEED, NOTHING, Samples, load_samples, save_samples

torch = pytest.importorskip("torch")


def _samples(number: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    target = np.where(rng.random(number) < 0.3, BLEED, NOTHING).astype(np.int8)
    near = rng.normal(0, 0.1, (number, *NEAR_SHAPE))
    near[target == BLEED, :, 12:16, 12:16] -= 0.6
    return Samples(
        near=near.astype(np.float16),
        across=rng.normal(0, 0.1, (number, *ACROSS_SHAPE)).astype(np.float16),
        wide=rng.normal(0, 0.1, (number, *WIDE_SHAPE)).astype(np.float16),
        table=rng.normal(0, 1, (number, len(COLUMNS))).astype(np.float32),
        target=target,
        spot=np.where(target == BLEED, np.arange(number), -1).astype(np.int32),
        scan=np.zeros(number, np.int32),
        diameter=np.where(target == BLEED, 3.0, 0.0).astype(np.float32),
    )


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for seed, path in enumerate(paths):
        save_samples(_samples(150, seed), path, {})
    return paths


def test_networks_are_kept_until_samples_or_options_change(files, tmp_path):
    from cmbprep.lab.training.members import fit_members

    log = tmp_path / "train.log"
    options = FitOptions(epochs=1, members=2, whole=1, batch=32, width=8)

    def weights(options):
        network = fit_members(files, options, tmp_path, log, nprocs=2)
        return [value.numpy() for value in network.state_dict().values()]

    first = weights(options)
    assert len({member.tobytes() for member in first}) > len(first) // 2
    lines = log.read_text(encoding="utf-8").splitlines()
    assert sum("network-1: " in line for line in lines) == 2
    assert sum("network-2: " in line for line in lines) == 2

    again = weights(options)
    assert log.read_text(encoding="utf-8").splitlines() == lines
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))

    # One network more leaves the others.
    assert len(weights(replace(options, members=3))) == len(first) * 3 // 2
    assert log.read_text(encoding="utf-8").count("network-1: ") == 2

    # One process instead of two, from nothing: the same networks.
    (tmp_path / "network-1.pt").unlink()
    once_more = fit_members(files, options, tmp_path, log).state_dict().values()
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(first, once_more, strict=True))

    save_samples(_samples(150, 9), files[1], {})
    assert not np.array_equal(weights(options)[0], first[0])


def test_mined_passes_learn_what_whole_ones_do(files):
    from cmbprep.lab.training.fitting import fit_network, predict
    from cmbprep.lab.training.network import Ensemble

    samples, others = load_samples(files), _samples(150, 7)
    network = fit_network(samples, FitOptions(epochs=6, whole=1, batch=32, width=8))
    logits = predict(Ensemble([network]).eval(), others)
    right = (logits[:, BLEED] > logits[:, NOTHING]) == (others.target == BLEED)
    assert right.mean() > 0.95
