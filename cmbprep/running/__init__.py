"""What a run needs around its work: processes, locks, places, faults of the machine."""
