"""cmbprep: cerebral microbleeds from BIDS datasets, found, placed and reported."""

__version__ = "0.1.0"

__all__ = ["__version__"]
