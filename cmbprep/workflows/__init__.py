"""Workflows: the graph of a run (``base``), made of stages (``anatomy``, ``scan``).

``graph`` is the builder, ``image`` has the steps of every image, ``shared`` what all participants
use, ``names`` the work folders, ``crashes`` the scans that a failed node loses. No arithmetic.
"""
