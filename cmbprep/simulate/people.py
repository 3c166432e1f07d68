"""Participants: who is scanned, and how many microbleeds each has.

Counts are heavy-tailed, as in cohorts of older people: most carriers have 1 to 4, few have
dozens. Carriers are more frequent here than in the population, because a dataset is
made to have something to find; age, hypertension and antithrombotic drugs shift the odds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Person", "draw_people"]

#: Largest count of a scan in the cohorts that the docs' page on the simulator lists.
LARGEST_COUNT = 83


@dataclass(frozen=True, kw_only=True)
class Person:
    """A simulated participant.

    Attributes
    ----------
    label
        Without ``sub-``.
    age, sex
        Years; ``F`` or ``M``.
    site
        ``site1`` and so on.
    hypertension, antithrombotic
        Risk factors.
    atrophy, lesion_load
        0..1, of the brain and of its white-matter lesions.
    microbleeds
        Number that are put in; not all need be visible on the scan.
    protocol
        Name of the preset that the person is scanned with.
    """

    label: str
    age: int
    sex: str
    site: str
    hypertension: bool
    antithrombotic: bool
    atrophy: float
    lesion_load: float
    microbleeds: int
    protocol: str


def draw_people(number: int, seed: int, protocols: tuple[str, ...], sites: int) -> list[Person]:
    """Draw participants; the first n of a longer list are those of a shorter one.

    Parameters
    ----------
    number
        How many.
    seed
        Same seed, same people.
    protocols
        Presets; every site takes the next one, and with one site every participant does.
    sites
        Number of sites.
    """
    start = float(np.random.default_rng([seed, 0]).random())
    width = max(2, len(str(number)))
    return [
        _draw(index, f"{index + 1:0{width}d}", seed, protocols, sites, start)
        for index in range(number)
    ]


def _draw(
    index: int, label: str, seed: int, protocols: tuple[str, ...], sites: int, start: float
) -> Person:
    rng = np.random.default_rng([seed, 1, index])
    age = int(np.clip(rng.normal(70, 10), 45, 92))
    hypertension = bool(rng.random() < 0.25 + 0.01 * (age - 45))
    antithrombotic = bool(rng.random() < 0.15 + 0.008 * (age - 45))
    decade = (age - 70) / 10
    carrier = 1 / (1 + np.exp(-(0.5 + 0.5 * decade + 0.5 * hypertension + 0.3 * antithrombotic)))
    # The golden ratio spreads carriers evenly over a short list of participants.
    number = 0
    if (start + index * 0.6180339887) % 1.0 < carrier:
        number = int(np.clip(np.round(np.exp(rng.normal(np.log(2.6), 1.1))), 1, LARGEST_COUNT))
    site = index % sites
    return Person(
        label=label,
        age=age,
        sex="F" if rng.random() < 0.5 else "M",
        site=f"site{site + 1}",
        hypertension=hypertension,
        antithrombotic=antithrombotic,
        atrophy=float(np.clip(0.3 + 0.15 * decade + rng.normal(0, 0.15), 0, 1)),
        lesion_load=float(
            np.clip(0.3 + 0.15 * decade + 0.1 * hypertension + rng.normal(0, 0.2), 0, 1)
        ),
        microbleeds=number,
        protocol=protocols[(site if sites > 1 else index) % len(protocols)],
    )
