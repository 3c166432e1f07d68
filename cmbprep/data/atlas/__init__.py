"""The packaged zone atlases, and the program that builds them."""
