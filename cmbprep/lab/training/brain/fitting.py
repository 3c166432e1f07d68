"""Fits the brain-mask network (PyTorch; training only)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmbprep.lab.training.brain.contrasts import draw_scan
from cmbprep.lab.training.brain.heads import TrainingHead
from cmbprep.lab.training.brain.network import BrainNetwork

#: Log-odds that are learned change by this much over a millimetre.
STEEPNESS = 1.0
#: Part of the old weights that a step keeps in the average that is the result.
AVERAGE = 0.995
#: Steps between two lines of the log.
REPORTED = 100


@dataclass(frozen=True, kw_only=True)
class BrainFitOptions:
    """How to fit.

    Attributes
    ----------
    steps, rate
        Number of steps, each on one scan; largest learning rate (one cycle).
    seed
        Of weights and scans.
    real_share
        Part of the scans that are of real heads, if there are any.
    """

    steps: int = 34000
    rate: float = 2e-3
    seed: int = 0
    real_share: float = 0.5


def fit_brain_network(
    simulated: Sequence[TrainingHead],
    real: Sequence[TrainingHead],
    options: BrainFitOptions,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[BrainNetwork], None] = lambda _: None,
) -> BrainNetwork:
    """Fit a network to scans that are drawn anew at each step.

    Parameters
    ----------
    simulated, real
        Heads.
    options
        How.
    say
        Receives messages about progress.
    keep
        Is given the network now and then, so that a fit that is stopped leaves one.
    """
    torch.manual_seed(options.seed)
    rng = np.random.default_rng([461, options.seed])
    network = BrainNetwork().to(memory_format=torch.channels_last_3d).train()
    average = deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.rate, total_steps=options.steps, pct_start=0.1
    )
    start, seen, skipped = time.monotonic(), [(float("nan"), float("nan"))], 0
    for step in range(1, options.steps + 1):
        pool = real if real and rng.random() < options.real_share else simulated
        # One scan a step: their sizes differ.
        scan = draw_scan(pool[int(rng.integers(len(pool)))], rng)
        channels = torch.from_numpy(scan.channels[None])
        distance = torch.from_numpy(scan.distance[None, None])
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(channels.contiguous(memory_format=torch.channels_last_3d))
        loss, dice = _loss(logits.float(), distance, channels[:, 1:2])
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        # Half precision fails now and then; such a step would spoil every weight.
        if torch.isfinite(norm):
            optimiser.step()
            seen.append((loss.item(), dice))
            _follow(average, network, min(AVERAGE, step / (step + 10)))
        else:
            skipped += 1
        schedule.step()
        if step % REPORTED == 0:
            losses, dices = np.array(seen[-REPORTED:]).T
            say(
                f"step {step}/{options.steps}: loss {np.nanmean(losses):.4f}, Dice "
                f"{np.nanmean(dices):.4f} (lowest {np.nanmin(dices):.3f}), "
                f"{skipped} skipped, {time.monotonic() - start:.0f} s"
            )
            keep(average)
    return average


def _loss(logits: Tensor, distance: Tensor, inside: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy with soft labels, heavier near the border, and soft Dice."""
    target = torch.sigmoid(STEEPNESS * distance)
    weight = inside * (1 + 3 * torch.exp(-((distance / 6) ** 2)))
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    entropy = (entropy * weight).sum() / weight.sum().clamp_min(1)
    found = torch.sigmoid(logits) * inside
    target = target * inside
    dice = 1 - (2 * (found * target).sum() + 1) / (found.sum() + target.sum() + 1)
    hard, truth = (logits > 0) & (inside > 0), (distance > 0) & (inside > 0)
    both = int(hard.sum() + truth.sum())
    reached = 2 * int((hard & truth).sum()) / both if both > 1000 else float("nan")
    return entropy + 0.5 * dice, reached


@torch.no_grad()
def _follow(average: BrainNetwork, network: BrainNetwork, kept: float) -> None:
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1 - kept)
