"""Thin nipype interfaces: files in, a function of ``cmbprep.algorithms``, files out."""
