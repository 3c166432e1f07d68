"""How a network is fitted."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FitOptions"]


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to fit.

    Attributes
    ----------
    epochs, batch, rate
        Passes over the samples, candidates a step, largest learning rate (one cycle).
    seed
        Of weights, order and augmentation.
    width
        See :class:`cmbprep.lab.training.network.CandidateNetwork`.
    whole
        Number of passes, the first ones, that take candidates without a spot whatever they are.
    easy
        Part of the candidates without a spot that these passes take, and that they weigh as in
        all others.
    surprising
        Part that later passes take, the more likely the larger their loss (:mod:`.mining`).
    members
        Networks whose logits are averaged.
    short
        Multiply in bfloat16: some times faster on processors with AMX, about as good.
    """

    epochs: int = 12
    batch: int = 128
    rate: float = 2e-3
    seed: int = 0
    width: int = 24
    whole: int = 2
    easy: float = 0.6
    surprising: float = 0.2
    members: int = 2
    short: bool = False
