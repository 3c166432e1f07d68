"""Writing: files, names, stages with fingerprints, sidecars, the dataset, records of runs.

A file is written whole or not at all (``files``). ``names`` has the names of all outputs,
``stages`` the fingerprints, ``records`` and ``logs`` what a run leaves.
"""

from cmbprep.outputs.files import read_json, write_atomically, write_image, write_json, write_text

__all__ = ["read_json", "write_atomically", "write_image", "write_json", "write_text"]
