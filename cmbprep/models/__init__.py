"""Models that come with the program, each with its card; made by ``cmbprep-tools train``."""
