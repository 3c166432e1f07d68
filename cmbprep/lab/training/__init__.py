"""How the models that come with the program are made: ``cmbprep-tools train``.

Nothing here is needed to use the program. Scans are simulated under random protocols
(:mod:`.protocols`, :mod:`.scans`), candidates are cut out and labelled (:mod:`.samples`), a
network is fitted (:mod:`.network`, :mod:`.fitting`) and calibrated on people left out
(:mod:`cmbprep.lab.training.calibration`).
"""
