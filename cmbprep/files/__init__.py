"""Text files that people and programs write: JSON and tab-separated tables."""
