"""Models of microbleeds over the participants of a cohort, fitted with statsmodels.

``cmbprep BIDS_DIR OUTPUT_DIR group --model FORMULA`` reads the formula (:mod:`.formula`), takes the
numbers from the table of participants (:mod:`.design`), fits (:mod:`.fitting`), checks
(:mod:`.checks`, :mod:`.cautions`), and repeats the fit over draws of the detector's lesions
(:mod:`.detection`). :func:`.fit_models` does all this; :mod:`.tables` writes the results.
"""

from cmbprep.group.models.fitted import FittedModel, ModelOptions, check_requests, fit_models
from cmbprep.group.models.formula import ModelRequest, parse_models

__all__ = [
    "FittedModel",
    "ModelOptions",
    "ModelRequest",
    "check_requests",
    "fit_models",
    "parse_models",
]
