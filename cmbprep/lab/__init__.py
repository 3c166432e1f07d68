"""``cmbprep-tools``: ``simulate``, ``evaluate``, ``train``, ``demo``, and the atlas.

Nothing outside of this package imports it. ``training`` is the only user of PyTorch.
"""
