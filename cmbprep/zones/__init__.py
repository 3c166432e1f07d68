"""Rating schemes: regions, zones, position of a lesion, patterns and burden classes."""
