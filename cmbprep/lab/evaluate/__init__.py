"""Lesion-wise evaluation of microbleed detection against a known truth.

From files to a page, one direction, each step a module::

    files       which files in a folder describe which scan; truth scans <-> predicted scans
    matching    value objects (Mark, LesionSet), and when two lesions may be matched
    reading     files -> LesionSet
    scoring     one scan -> ScanResult (hits, misses, false positives and where they lie)
    collect     two folders -> the ScanResults, with site, protocol and sequence of each scan
    curves      FROC and precision-recall curves
    metrics     every metric as a function of a sample of scans and their weights
    evaluation  all of it for the whole set and for every split
    thresholds  stated minima and whether they hold
    tables      TSV and JSON, and how things were counted, in sentences
    page        the HTML page with its plots
    command     ``cmbprep-tools evaluate``

Lesions are assigned to lesions by :mod:`cmbprep.ratings.matching`; agreement, calibration and the
bootstrap over subjects are in :mod:`cmbprep.ratings.statistics`.
Only :mod:`~cmbprep.lab.evaluate.files`, ``reading``, ``collect`` and ``command`` touch
the user's files; the others are functions of arrays and value objects.
"""
