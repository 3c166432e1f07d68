"""A physical simulator of microbleeds and their mimics on gradient-echo MRI.

From the head outwards, each module builds on those before it::

    tissue       what tissues are made of (T1, R2*, proton density, susceptibility)
    field        susceptibility -> magnetic field (dipole kernel, shim); where a scan lies
    signal       field and tissue -> complex gradient-echo signal, k-space, noise
    deformation  volumes, and deformations that make one head from another
    head         one person's head: tissues, skull, air, iron, and its way to the template
    heads        heads from the template and from real T1-weighted images
    sources      microbleeds and their mimics: what they are, where and how many
    vessels      veins and arteries as trees of tubes
    protocols    scanner presets with the publications they follow; participants
    scene        head + sources + protocol -> what lies in each fine cell of a scan
    scanner      fine cells -> a whole scan with coils, motion and noise; SWI
    truth        that as label images and tables
    implant      microbleeds put into real scans
    dataset      all of it as a BIDS dataset
    command      ``cmbprep-tools simulate``
"""
