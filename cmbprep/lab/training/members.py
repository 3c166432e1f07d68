"""Fits the networks of the average, some at a time; those that are done are kept (PyTorch).

Each is fitted by a process of its own on one thread, so that the same samples and options give the
same network however many are fitted at a time.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cmbprep.lab.training.mining import FitOptions
from cmbprep.lab.training.network import CandidateNetwork, Ensemble
from cmbprep.running.processes import process_pool


@dataclass(frozen=True)
class _Member:
    """One network to fit.

    Attributes
    ----------
    path
        Where its weights go.
    options
        Its own: the seed differs.
    samples
        Files of the samples.
    digest
        Of their content.
    """

    path: Path
    options: FitOptions
    samples: tuple[Path, ...]
    digest: int

    @property
    def made_from(self) -> dict[str, Any]:
        """What decides its weights; they are kept as long as this is the same."""
        options = asdict(self.options)
        # One more of them leaves the others as they are.
        del options["members"]
        return {**options, "samples": self.digest}


def fit_members(
    samples: Sequence[Path],
    options: FitOptions,
    folder: Path,
    log: Path,
    *,
    nprocs: int = 1,
) -> Ensemble:
    """Fit the networks, or read those that a run before has fitted.

    Parameters
    ----------
    samples
        Files of :func:`.samples.save_samples`.
    options
        Of the fit.
    folder
        Gets the weights of each network.
    log
        File that lines are added to.
    nprocs
        Networks fitted at a time; each holds the samples in memory.

    Raises
    ------
    RuntimeError
        If another run writes into the same folder meanwhile.
    """
    digest = _digest(samples)
    members = [
        _Member(
            path=folder / f"network-{number + 1}.pt",
            options=replace(options, seed=100 * options.seed + number),
            samples=tuple(samples),
            digest=digest,
        )
        for number in range(options.members)
    ]
    left = [member for member in members if _read(member) is None]
    if left:
        workers = min(nprocs, len(left))
        with process_pool(workers) as pool:
            list(pool.map(_fit, left, [log] * len(left)))
    networks = []
    for member in members:
        network = _read(member)
        if network is None:
            raise RuntimeError(f"{member.path.name} is not what was just written")
        networks.append(network)
    return Ensemble(networks).eval()


def _fit(member: _Member, log: Path) -> None:
    """Fit one network and write its weights, whole or not at all."""
    import torch

    from cmbprep.lab.training.fitting import fit_network
    from cmbprep.lab.training.log import logger
    from cmbprep.lab.training.samples import load_samples

    torch.set_num_threads(1)
    say = logger(log, f"{member.path.stem}: ")
    samples = load_samples(member.samples)
    say(f"fitting to {len(samples)} candidates of {len(member.samples)} scans")
    network = fit_network(samples, member.options, say)
    partial = member.path.with_suffix(".partial")
    torch.save({"made_from": member.made_from, "weights": network.state_dict()}, partial)
    partial.rename(member.path)


def _read(member: _Member) -> CandidateNetwork | None:
    """Read a network; None if it is not there or was fitted to something else."""
    import torch

    from cmbprep.detectors.views import COLUMNS

    if not member.path.exists():
        return None
    stored = torch.load(member.path, weights_only=True)
    if stored["made_from"] != member.made_from:
        return None
    network = CandidateNetwork(len(COLUMNS), member.options.width)
    network.load_state_dict(stored["weights"])
    return network.eval()


def _digest(samples: Sequence[Path]) -> int:
    """Checksum of the content of files of samples, from the checksums that they hold."""
    total = 0
    for path in samples:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                total = zlib.crc32(f"{path.name} {entry.filename} {entry.CRC}".encode(), total)
    return total
