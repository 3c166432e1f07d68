"""Thin nipype interfaces around pure functions, declared by ``compute`` (``base``)."""
