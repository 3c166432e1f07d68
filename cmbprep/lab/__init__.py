"""What makes and measures the program; nothing outside of this package imports it."""
