"""Fit of the brain-mask network: ``cmbprep-tools train --model brain``.

Heads
    24 simulated ones, from the packaged template, deformed at random, whose brain is the
    template's mask, propagated; real ones, whose brain is the consensus of HD-BET and deepbet:
    T1w of myconnectome and ds000240 (OpenNeuro), Colin 27, the packaged template; T1w and T2*w of
    ``s1`` (pycortex), T2*w of ``niivue``.
Contrast
    Of simulated heads: an intensity per tissue, in the ranges of T2*w, T1w and T2w, or any. Of real
    heads: as acquired, or a random curve of the intensity, a different one inside the brain.
Scans
    Each of the 34000 steps draws a new one: contrast, suppressed fat or a stripped head, dropout, a
    cavity, rotation up to 40 degrees, scale, bend, mirror, bias, blur, thick slices, noise, a cut
    field of view, a slab of 24 to 90 mm.
Loss
    Cross-entropy with the logistic function of the distance to the border in mm, with more weight
    within 6 mm of it, and half a soft Dice.
Network
    A U-Net at 8, 16, 32 and 64 mm with one layer at 4 mm, 1.1 million weights (2.2 MB in half
    precision).
"""
