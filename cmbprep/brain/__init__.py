"""Bias field, brain mask (network, refinement, selection), image quality."""
