"""Registration: pose search, fit, scan to T1w image, judgement."""
