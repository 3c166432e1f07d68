"""The old place of :mod:`cmbprep.bids.images`, kept for scripts that import it from here."""

from cmbprep.bids.images import check_header, read_phase, read_scan_image

__all__ = ["check_header", "read_phase", "read_scan_image"]
