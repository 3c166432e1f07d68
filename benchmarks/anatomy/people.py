"""The heads of simulated people, and their T1w images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Person:
    """A simulated head before it is scanned.

    Attributes
    ----------
    seed
        Of the person.
    age
        Years.
    head
        Tissues, and the map to the template.
    streams
        Random numbers: of the head, bleeds, mimics, vessels, dura, and T1w image.
    """

    seed: int
    age: float
    head: Any
    streams: list[np.random.Generator]

    @property
    def centre(self) -> NDArray[np.float64]:
        """Where scans are centred, mm of the head."""
        centre: NDArray[np.float64] = self.head.to_template.inverse(np.array([[0.0, -18.0, 8.0]]))
        return centre[0]

    def vessels(self) -> Any:
        """Draw veins and arteries."""
        from cmbprep.lab.simulate import vessels

        inverse = self.head.to_template.inverse
        tubes = vessels.draw_veins(self.head, inverse, self.streams[3])
        return tubes + vessels.draw_arteries(inverse, self.streams[3])

    def brain_points(self) -> NDArray[np.float64]:
        """Choose 5000 points of the brain, mm of the head."""
        brain = np.argwhere(self.head.brain_mask())
        rng = np.random.default_rng([self.seed, 4])
        chosen = brain[rng.choice(len(brain), 5000, replace=False)]
        points: NDArray[np.float64] = chosen @ self.head.affine[:3, :3].T + self.head.affine[:3, 3]
        return points

    def plan(self, protocol: Any) -> tuple[Any, np.random.Generator]:
        """Lay a protocol's grid over the head; also the random numbers of the scan."""
        from cmbprep.lab.simulate.field import plan_geometry

        rng = np.random.default_rng([self.seed, 3, sum(map(ord, protocol.name))])
        return plan_geometry(protocol, self.centre, rng), rng

    def t1w(self, scan_geometry: Any) -> dict[str, NDArray[Any]]:
        """Scan a T1w image, before or after another scan, and lay points of the brain in it."""
        from cmbprep.lab.simulate import scanner
        from cmbprep.lab.simulate.dataset import _t1w_geometry

        geometry = _t1w_geometry(scan_geometry, self.centre, self.streams[5])
        image = scanner.acquire_t1w(self.head, geometry, 3.0, self.streams[5])
        in_head = self.brain_points()
        return {
            "t1w_image": image.astype(np.float16),
            "t1w_affine": geometry.affine,
            "t1w_points": in_head @ geometry.pose[:3, :3].T + geometry.pose[:3, 3],
            "t1w_in_template": self.head.to_template(in_head),
        }


def simulate_person(seed: int, *, rim: float = 0.0) -> Person:
    """Build the head of a person.

    Parameters
    ----------
    seed
        Of the person.
    rim
        mm of fluid below the skull, in addition to the usual.
    """
    from cmbprep.lab.simulate.head import build_head
    from cmbprep.lab.simulate.heads import load_template_head
    from cmbprep.lab.simulate.protocols import draw_people

    streams = [np.random.default_rng([seed, 2, 0, k]) for k in range(6)]
    person = draw_people(1, seed, ("demo",), 1)[0]
    head = build_head(
        load_template_head(),
        streams[0],
        age=person.age,
        atrophy=person.atrophy,
        lesion_load=person.lesion_load,
        rim=rim,
    )
    return Person(seed, person.age, head, streams)
