"""FreeSurfer's label numbers: each stands for one structure, left as right."""

from __future__ import annotations

import numpy as np
import pytest

from cmbprep.zones.freesurfer import CORTEX, FILLED, KINDS, LABELS, WHITE, read_labels

# What aparc+aseg of FreeSurfer and FastSurfer hold.
ASEG = [2, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 26, 28, 30, 31, 41, 43, 44, 46, 47]
ASEG += [49, 50, 51, 52, 53, 54, 58, 60, 62, 63, 72, 77, 80, 85, 251, 252, 253, 254, 255]
GYRI = [number for number in range(36) if number != 4]

PAIRS = [(2, 41), (3, 42), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51)]
PAIRS += [(13, 52), (17, 53), (18, 54), (26, 58), (28, 60), (30, 62), (31, 63)]
PAIRS += [(1000 + number, 2000 + number) for number in range(36)]
PAIRS += [(3000 + number, 4000 + number) for number in range(36)]


def test_every_label_of_aparc_and_aseg_is_known() -> None:
    gyri = [base + gyrus for base in (1000, 2000, 3000, 4000) for gyrus in GYRI]
    missing = [n for n in (*ASEG, 3, 42, *gyri, 5001, 5002) if n not in LABELS and n % 1000 != 4]
    assert missing == []


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_left_and_right_are_the_same_structure(left: int, right: int) -> None:
    if left not in LABELS and right not in LABELS:
        pytest.skip("FreeSurfer has no such gyrus")
    assert LABELS[left].kind == LABELS[right].kind
    assert (LABELS[left].side, LABELS[right].side) == (1, 2)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1024, "frontal"),  # precentral
        (1022, "parietal"),  # postcentral
        (2026, "frontal"),  # rostral anterior cingulate
        (2023, "parietal"),  # posterior cingulate
        (1034, "temporal"),  # Heschl's gyrus
        (1013, "occipital"),  # lingual
        (2007, "temporal"),  # fusiform
        (2035, "insula"),
        (17, "temporal"),  # hippocampus
        (52, "basal ganglia"),  # pallidum
        (49, "thalamus"),
        (16, "brainstem"),
        (46, "cerebellum"),
        (44, "lateral ventricle"),  # temporal horn
        (15, "other ventricle"),
        (253, "corpus callosum"),
        (77, WHITE),
        (41, WHITE),
        (3028, WHITE),
        (42, CORTEX),
        (24, FILLED),
    ],
)
def test_structures_lie_where_anatomy_has_them(number: int, kind: str) -> None:
    assert LABELS[number].kind == kind


def test_numbers_of_an_image_are_looked_up() -> None:
    image = np.array([[0, 2, 41], [9999, 16, 2035]])
    kind, side, unknown = read_labels(image)
    assert kind.shape == image.shape
    assert [KINDS[code - 1] if code else None for code in kind.ravel()] == [
        None,
        WHITE,
        WHITE,
        None,
        "brainstem",
        "insula",
    ]
    assert side.tolist() == [[0, 1, 2], [0, 0, 2]]
    assert unknown == [9999]
