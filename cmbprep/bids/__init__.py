"""The raw dataset: what is in it, checked and turned into value objects."""
