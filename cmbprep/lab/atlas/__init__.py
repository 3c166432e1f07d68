"""How the packaged zone atlases are drawn."""
