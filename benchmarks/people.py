"""Simulated people for benchmarks: many microbleeds and mimics each, under several presets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AGE, BLEEDS = 72.0, 14


def scan_person(seed: int, names: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
    """Make one person, and scan them under presets.

    Parameters
    ----------
    seed
        First word of the seeds of the person, and of each scan.
    names
        Presets. A scan does not depend on which others are made.

    Yields
    ------
    dict
        ``echoes`` (complex), ``affine``, ``brain`` (its true mask), the truth's ``bleeds`` and
        ``others`` (labels) with their tables ``bt`` and ``ot``, and the preset's echo times
        (``te``), ``field`` and phase ``sign``.
    """
    from scipy import ndimage

    from cmbprep.lab.simulate import scanner, sources, vessels
    from cmbprep.lab.simulate.field import plan_geometry
    from cmbprep.lab.simulate.head import build_head
    from cmbprep.lab.simulate.heads import load_template_head
    from cmbprep.lab.simulate.protocols import get_protocol
    from cmbprep.lab.simulate.truth import tell_truth

    streams = [np.random.default_rng([seed, 2, 0, k]) for k in range(4)]
    head = build_head(load_template_head(), streams[0], age=AGE, atrophy=0.35, lesion_load=0.3)
    places = sources.place_masks(head)
    found = sources.draw_microbleeds(head, places, BLEEDS, streams[1])
    found += sources.draw_mimics(head, places, AGE, streams[2])
    tubes = vessels.draw_veins(head, head.to_template.inverse, streams[3])
    tubes += vessels.draw_arteries(head.to_template.inverse, streams[3])
    centre = head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))[0]
    for name in names:
        protocol = get_protocol(name)
        rng = np.random.default_rng([seed, 3, sum(map(ord, name))])
        geometry = plan_geometry(protocol, centre, rng)
        scan = scanner.acquire(head, tubes, found, protocol, geometry, rng)
        truth = tell_truth(head, found, scan)
        to_head = np.linalg.inv(head.affine) @ np.linalg.inv(geometry.head_to_voxel)
        brain = ndimage.affine_transform(
            head.brain_mask().astype(np.float32),
            to_head[:3, :3],
            to_head[:3, 3],
            geometry.shape,
            order=1,
        )
        yield {
            "echoes": np.stack(scan.echoes),
            "affine": geometry.affine,
            "brain": brain > 0.5,
            "bleeds": truth.microbleeds,
            "others": truth.others,
            "bt": np.array(truth.microbleed_table),
            "ot": np.array(truth.other_table),
            "te": np.array(protocol.echo_times),
            "field": np.array(protocol.field_strength),
            "sign": np.array(protocol.phase_sign),
        }
