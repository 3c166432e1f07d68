"""A simulated dataset that is processed once and looked at by many tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cmbprep.cli.main import main
from cmbprep.lab.simulate.dataset import simulate_dataset

SEED = 4711


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated participant with T1w and T2*w, and the truth."""
    folder = tmp_path_factory.mktemp("simulated") / "bids"
    simulate_dataset(folder, participants=1, seed=SEED, protocols=["demo"])
    return folder


@pytest.fixture(scope="session")
def processed(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output dataset of the simulated participant after both levels."""
    out = tmp_path_factory.mktemp("processed") / "out"
    assert main([str(simulated), str(out), "participant", "--nprocs", "1"]) == 0
    assert main([str(simulated), str(out), "group"]) == 0
    return out


def digests(root: Path) -> dict[str, str]:
    """Path -> SHA-256 of every result; logs have times and are left out."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".log" and ".work" not in path.parts
    }
