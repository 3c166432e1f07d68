"""Bias field, brain mask and image quality: pure functions on arrays and affines."""
