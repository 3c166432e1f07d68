"""Data that the program carries: templates, atlases, tables."""
