"""A physical simulator of microbleeds and their mimics on gradient-echo MRI.

From the head outwards, each module builds on those before it::

    tissue      what tissues are made of (T1, R2*, proton density, susceptibility)
    field       susceptibility -> magnetic field (dipole kernel, shim)
    signal      field and tissue -> complex gradient-echo signal, k-space, noise
    swi         magnitude and phase -> susceptibility-weighted image
    head        one person's head: tissues, skull, air, iron, and its way to the template
    sources     microbleeds and their mimics: what they are, where and how many
    vessels     veins and arteries as trees of tubes
    protocols   scanner presets with the publications they follow
    scanner     head + sources + protocol -> images and the truth about them
    people      participants: age, sex, risk factors, how many microbleeds
    dataset     all of it as a BIDS dataset
    command     ``cmbprep-tools simulate``
"""
