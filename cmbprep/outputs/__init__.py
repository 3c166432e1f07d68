"""What is written: files, stages, sidecars, the dataset's description, records of runs."""

from cmbprep.outputs.files import read_json, write_atomically, write_image, write_json, write_text

__all__ = ["read_json", "write_atomically", "write_image", "write_json", "write_text"]
