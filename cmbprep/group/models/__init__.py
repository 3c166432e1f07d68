"""Models of microbleeds over the participants of a cohort, fitted with statsmodels.

``cmbprep BIDS_DIR OUTPUT_DIR group --model FORMULA`` reads the formula (:mod:`.formula`), takes the
numbers from the table of participants (:mod:`.design`), fits (:mod:`.fitting`), checks
(:mod:`.checks`, :mod:`.cautions`), and repeats the fit over draws of the detector's lesions
(:mod:`.detection`). With strata, it does so in each and pools (:mod:`.stratified`).
:func:`.fit_models` does all this; :mod:`.tables` writes the results.
"""

from cmbprep.group.models.fitted import FittedModel, ModelOptions
from cmbprep.group.models.formula import ModelRequest, parse_models
from cmbprep.group.models.requested import CohortModel, check_requests, fit_models
from cmbprep.group.models.stratified import StratifiedModel

__all__ = [
    "CohortModel",
    "FittedModel",
    "ModelOptions",
    "ModelRequest",
    "StratifiedModel",
    "check_requests",
    "fit_models",
    "parse_models",
]
