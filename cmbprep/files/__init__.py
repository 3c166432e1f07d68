"""Text files: JSON (``json_text``, ``text``) and tab-separated tables (``tsv``)."""
