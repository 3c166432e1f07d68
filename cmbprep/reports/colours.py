"""Colours of figures and pages.

They can be distinguished with the common kinds of colour blindness (after Okabe and Ito), on
dark and on light ground.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Contours on grey pictures: first, second, third.
CONTOURS = ("#ffb000", "#2fd6c8", "#ff6eb4")

#: Outline of the lesion that a figure shows, and of other lesions in the same picture.
LESION_OUTLINE = CONTOURS[0]
OTHER_LESION_OUTLINE = "#79c0ff"

#: Zone of a lesion -> colour.
ZONE_COLOURS: Mapping[str, str] = {
    "lobar": "#56b4e9",
    "deep": "#e69f00",
    "infratentorial": "#4bb36a",
}

#: A field that is divided out: darker than it should be, unchanged, brighter.
FIELD_STOPS = ("#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b")

#: A frequency, from rare to the most frequent.
HEAT_STOPS = ("#7a0c2e", "#d1495b", "#f79d5c", "#ffe66d")
