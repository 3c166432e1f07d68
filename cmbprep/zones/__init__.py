"""Rating scales: regions, zones, where a lesion lies, patterns and burden classes."""
