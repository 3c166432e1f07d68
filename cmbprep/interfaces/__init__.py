"""Thin nipype interfaces: files in, a pure function on arrays, files out."""
