"""The group level: tables, a frequency map and a page, from the output dataset alone.

One direction: the results of each scan (:mod:`cmbprep.reports.results`) become rows
(:mod:`.tables`), rows are grouped by how the scans were acquired (:mod:`.protocols`), and
the masks in template space become a map (:mod:`.frequency`). What readers made of the scans is
compared by :mod:`.agreement`, for ``cmbprep-tools agreement``.
"""

from cmbprep.group.run import GroupResult, run_group

__all__ = ["GroupResult", "run_group"]
