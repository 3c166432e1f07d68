"""Grids, transforms and the door to ANTs."""
