"""cmbprep: cerebral microbleeds from BIDS datasets, found, placed and reported."""

import os

# onnxruntime reads it when it is imported: else it writes an identifier and a queue of events under
# the user's home folder and looks up a host. Worker processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"

__all__ = ["__version__"]
