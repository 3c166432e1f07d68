"""Processes that end with the program, locks, places, plugin files, faults of the machine."""
