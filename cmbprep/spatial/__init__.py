"""Grids, transforms, propagation of labels, access to ANTs (``ants``, ``ants_process``)."""
