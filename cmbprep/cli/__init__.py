"""The command line: the parser, and ``main(argv)``, which returns the exit status."""
