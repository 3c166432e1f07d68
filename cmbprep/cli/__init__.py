"""The command line: the standard library only, so that ``--help`` answers at once."""
