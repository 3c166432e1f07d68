"""Pure functions on arrays and affines: no BIDS, no nipype, no global state."""
