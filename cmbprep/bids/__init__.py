"""The raw dataset, checked and turned into value objects (``model``).

``index`` is the only user of pybids. ``survey`` finds folders and files, ``near_names`` and
``screening`` refuse, ``sidecars`` and ``quantities`` read metadata, ``images`` and ``geometry``
read images, ``units`` and ``scans`` put a participant together, ``preflight`` checks it.
"""
