"""Susceptibility-weighted images, made as the program makes them from real scans."""

from __future__ import annotations

from ..algorithms.swi import high_pass_phase, phase_mask, swi

__all__ = ["high_pass_phase", "phase_mask", "swi"]
