"""The participant level: from settings to results, a batch of participants at a time."""
