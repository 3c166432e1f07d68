"""Fit of the brain-mask network: ``cmbprep-tools train --model brain``."""
