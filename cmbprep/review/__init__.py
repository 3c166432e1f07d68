"""``cmbprep-tools review``: a person reads the machine's lesions in a browser."""
