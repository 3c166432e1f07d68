"""Phase: unwrapping, local field, sign of the susceptibility, SWI."""
