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
    geometry    where a scan lies, and the head in the scanner
    scene       head + sources + protocol -> what lies in each fine cell of a scan
    encoding    fine cells -> noise-free voxels
    scanner     a whole scan with coils, motion and noise, and what each source did to it
    truth       that as label images and tables
    people      participants: age, sex, risk factors, how many microbleeds
    dataset     all of it as a BIDS dataset
    command     ``cmbprep-tools simulate``
"""
