"""Fits the network to samples (PyTorch; training only)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmbprep.detectors.views import COLUMNS
from cmbprep.lab.training.mining import FitOptions, Passes
from cmbprep.lab.training.network import CandidateNetwork, Ensemble
from cmbprep.lab.training.samples import BLEED, CALCIFICATION, Samples
from cmbprep.lab.training.symmetry import DEPTHS, Mirror

_PHASE = COLUMNS.index("phase_known")
_ECHOES = COLUMNS.index("echoes_known")
_BLOOM = slice(COLUMNS.index("bloom"), COLUMNS.index("bloom_known") + 1)


def fit_network(
    samples: Samples,
    options: FitOptions,
    say: Callable[[str], None] = lambda _: None,
) -> CandidateNetwork:
    """Fit a network.

    Each bleed weighs the same, however many candidates it has. Views are flipped and their
    two axes swapped at random, intensities are scaled, and phase, early echoes and what is
    known of the protocol are hidden at random, so that the network does without them. After the
    first passes, candidates that are nothing are looked at the more rarely the plainer they are
    (:mod:`.mining`).
    """
    torch.manual_seed(options.seed)
    rng = np.random.default_rng([450, options.seed])
    network = CandidateNetwork(len(COLUMNS), options.width)
    _standardise(network, samples.table)
    weight = _weights(samples)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.02)
    passes = Passes(samples.spot, options)
    steps = sum(-(-number // options.batch) for number in passes.lengths())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.rate, total_steps=steps, pct_start=0.2
    )
    loss_of = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.02)
    for number in range(options.epochs):
        start, total = time.monotonic(), 0.0
        rows, counts = passes.draw(number, rng)
        for first in range(0, len(rows), options.batch):
            batch = np.sort(rows[first : first + options.batch])
            inputs = [part.to(device) for part in _augmented(samples, batch, rng)]
            target = torch.from_numpy(samples.target[batch].astype(np.int64)).to(device)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=options.short):
                logits = network(*inputs)
            logits = logits.float()
            own = torch.from_numpy(weight[batch] * counts[batch]).to(device)
            loss = (loss_of(logits, target) * own).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            if schedule.last_epoch < steps - 1:
                schedule.step()
            with torch.no_grad():
                found = nn.functional.cross_entropy(logits, target, reduction="none")
            passes.loss[batch] = found.cpu().numpy()
            total += loss.item() * len(batch)
        say(
            f"epoch {number + 1}/{options.epochs}: loss {total / len(rows):.4f}, "
            f"{len(rows)} candidates, {time.monotonic() - start:.0f} s"
        )
    return network.to("cpu", memory_format=torch.contiguous_format).eval()


def predict(network: Ensemble, samples: Samples, batch: int = 256) -> NDArray[np.float64]:
    """Logits (n, 3) of samples as they are."""
    network.eval()
    found = []
    with torch.inference_mode():
        for first in range(0, len(samples), batch):
            rows = slice(first, first + batch)
            parts = (samples.near[rows], samples.across[rows], samples.wide[rows])
            views = [torch.from_numpy(part.astype(np.float32)) for part in parts]
            found.append(network(*views, torch.from_numpy(samples.table[rows])).numpy())
    return np.concatenate(found).astype(np.float64)


def _standardise(network: CandidateNetwork, table: NDArray[np.float32]) -> None:
    spread = table.std(axis=0)
    network.centre.copy_(torch.from_numpy(table.mean(axis=0)))
    network.scale.copy_(torch.from_numpy(np.where(spread > 1e-4, spread, 1.0).astype(np.float32)))


def _weights(samples: Samples) -> NDArray[np.float32]:
    """Weight of each candidate: a spot's is shared by its candidates."""
    weight = np.ones(len(samples), np.float32)
    key = samples.scan.astype(np.int64) * 100_000 + samples.spot
    marked = (samples.target == BLEED) | (samples.target == CALCIFICATION)
    _, inverse, counts = np.unique(key[marked], return_inverse=True, return_counts=True)
    weight[marked] = 1.0 / counts[inverse]
    weight[marked] *= 2.0
    return weight


def _augmented(samples: Samples, rows: NDArray[np.int_], rng: np.random.Generator) -> list[Tensor]:
    near = samples.near[rows].astype(np.float32)
    across = samples.across[rows].astype(np.float32)
    wide = samples.wide[rows].astype(np.float32)
    table = samples.table[rows].copy()
    # The same symmetry for the whole batch.
    first, second, swap, through = (bool(drawn) for drawn in rng.random(4) < 0.5)
    mirror = Mirror(first=first, second=second, through=through, swap=swap)
    near, across, wide = mirror.views(near, across, wide)
    near, across, wide = _hidden(near, across, wide, table, rng)
    gain = np.exp(rng.normal(0, 0.12, (len(rows), 1, 1, 1))).astype(np.float32)
    near[:, :DEPTHS] *= gain
    across[:, :, :3] *= gain[:, None]
    wide[:, :5] *= gain
    noise = np.abs(rng.normal(0, 0.02, (len(rows), 1, 1, 1))).astype(np.float32)
    near[:, :DEPTHS] += noise * rng.standard_normal(near[:, :DEPTHS].shape, dtype=np.float32)
    table += rng.normal(0, 0.03, table.shape).astype(np.float32)
    return [torch.from_numpy(np.ascontiguousarray(part)) for part in (near, across, wide, table)]


def _hidden(
    near: NDArray[np.float32],
    across: NDArray[np.float32],
    wide: NDArray[np.float32],
    table: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Hide phase, early echoes and echo time from some candidates."""
    phase = rng.random(len(near)) < 0.35
    near[phase, DEPTHS : DEPTHS + 3] = 0
    across[phase, :, 3] = 0
    table[phase, _PHASE] = 0
    echoes = rng.random(len(near)) < 0.35
    near[echoes, DEPTHS + 3 : DEPTHS + 6] = 0
    across[echoes, :, 4] = 0
    table[echoes, _ECHOES] = 0
    table[rng.random(len(near)) < 0.2, _BLOOM] = 0
    return near, across, wide
