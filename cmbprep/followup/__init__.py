"""Follow-up: two visits of a participant registered, and the fate of every lesion."""
