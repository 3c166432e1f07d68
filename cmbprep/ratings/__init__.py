"""What readers decided about the lesions of a scan, and what follows from it."""
