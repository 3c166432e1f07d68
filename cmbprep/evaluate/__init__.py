"""Lesion-wise evaluation of microbleed detection against a known truth.

From files to a page, one direction, each step a module::

    files       which files in a folder describe which scan
    lesionset   value objects: Mark (a lesion), LesionSet (those of a scan, with their voxels)
    reading     files -> LesionSet
    pairing     truth scans <-> predicted scans, and what has no partner
    context     site, protocol, sequence of each scan
    matching    lesions <-> lesions of one scan, one to one and optimal
    scoring     one scan -> ScanResult (hits, misses, false positives and where they lie)
    collect     two folders -> the ScanResults, and a record of every scan
    sample      many ScanResults -> arrays over scans
    curves      FROC, precision-recall and reliability curves
    agreement   intraclass correlation, kappa, limits of agreement
    figures     the catalogue: every figure as a function of a sample and scan weights
    intervals   bootstrap over subjects
    evaluation  all of it for the whole set and for every split
    floors      stated minima and whether they hold
    conventions how it was counted, in sentences
    tables      TSV and JSON;  plots, page: the HTML page
    command     ``cmbprep-tools evaluate``

Only :mod:`~cmbprep.evaluate.files`, ``reading``, ``context`` and ``command`` touch
the user's files; the others are functions of arrays and value objects.
"""
