"""Makes the samples that models are fitted on; what is done already is kept.

Roles and their seeds. ``train`` scans hold many bleeds and mimics. ``tune`` scans hold as
many as people do and set what a probability means and the operating points. Neither shares
a person or a protocol with the datasets that results are reported on, which come from
``cmbprep-tools simulate`` with seeds of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmbprep.lab.training.scans import TrainingScan, simulate_scans
from cmbprep.running.processes import process_pool

#: Role -> (first word of its seeds, bleeds a person or None for as many as people have,
#: rounds of mimics, protocols a person).
FAMILIES: dict[str, tuple[int, int | None, int, int]] = {
    "train": (410, 40, 2, 2),
    "tune": (420, None, 1, 2),
}
#: First word of the seeds of bleeds put into real scans.
REAL_FAMILY = {"train": 430, "tune": 440}


def data_seeds() -> dict[str, dict[str, int]]:
    """Return the first words of the seeds by role, for the card of a model."""
    simulated = {role: family[0] for role, family in FAMILIES.items()}
    return {"simulated": simulated, "implanted": REAL_FAMILY}


@dataclass(frozen=True)
class Task:
    """One person, or one real scan, to make samples of.

    Attributes
    ----------
    role
        ``train`` or ``tune``.
    number
        Of the person within the role.
    dest
        Folder of the samples.
    results, subject
        Where a real scan comes from; None for a simulated person.
    """

    role: str
    number: int
    dest: Path
    results: Path | None = None
    subject: str | None = None

    @property
    def stem(self) -> str:
        """Start of the names of its files."""
        origin = "simulated" if self.subject is None else f"real-{self.subject}"
        return f"{self.role}_{origin}_{self.number:04d}"


def plan_tasks(
    dest: Path,
    people: dict[str, int],
    real: dict[str, int] | None = None,
    results: Path | None = None,
    subjects: tuple[str, ...] = (),
) -> list[Task]:
    """List what is to be made, roles taking turns so that a part of the list is a fair one.

    Parameters
    ----------
    dest
        Folder of the samples.
    people
        Role -> number of simulated people.
    real
        Role -> number of scans made of each real one.
    results, subjects
        Results of cmbprep, and whose scans in them are real backgrounds.
    """
    jobs: list[tuple[str, int, str | None]] = [(role, n, None) for role, n in people.items()]
    jobs += [(role, n, subject) for role, n in (real or {}).items() for subject in subjects]
    tasks = [
        (number / count, Task(role, number, dest, results if subject else None, subject))
        for role, count, subject in jobs
        for number in range(count)
    ]
    return [task for _, task in sorted(tasks, key=lambda pair: (pair[0], pair[1].stem))]


def generate(
    tasks: list[Task], nprocs: int, progress: Callable[[int, int, str, float], None] | None = None
) -> None:
    """Do the tasks that are not done yet, some at a time.

    Parameters
    ----------
    tasks
        What to do.
    nprocs
        How many at a time.
    progress
        Called after each with the number of tasks done, that of all, the name, and the seconds of
        a processor that it took.
    """
    left = [task for task in tasks if not (task.dest / f"{task.stem}.done").exists()]
    # ITK and BLAS would each take all cores in every process.
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with process_pool(nprocs) as pool:
        made = zip(left, pool.map(_make, left), strict=True)
        for done, (task, seconds) in enumerate(made, start=1):
            if progress is not None:
                progress(done, len(left), task.stem, seconds)


def _make(task: Task) -> float:
    """Make the samples of a task; give the processor's seconds."""
    from cmbprep.lab.training.samples import collect, save_samples

    start = time.process_time()
    task.dest.mkdir(parents=True, exist_ok=True)
    family = FAMILIES[task.role][0] if task.subject is None else REAL_FAMILY[task.role]
    words = [family, task.number]
    if task.subject is not None:
        words += list(task.subject.encode())
    rng = np.random.default_rng(words)
    for index, scan in enumerate(training_scans(task, rng)):
        # A stream of its own: a change to the candidates leaves the next scan as it was.
        samples, summary = collect(scan, 0, np.random.default_rng([*words, 1, index]))
        summary |= {
            "sequence": scan.scan.sequence,
            "spacing": [round(float(s), 3) for s in scan.scan.spacing],
            "field_strength": scan.scan.field_strength,
            "echo_times": list(scan.scan.echo_times),
            "phase": bool(scan.scan.phases),
        }
        save_samples(samples, task.dest / f"{task.stem}_{index}.npz", summary)
    (task.dest / f"{task.stem}.done").touch()
    return time.process_time() - start


def training_scans(task: Task, rng: np.random.Generator) -> Iterator[TrainingScan]:
    """Simulate the scans of a task, or put bleeds into its real ones.

    Parameters
    ----------
    task
        What to make scans of.
    rng
        Source of randomness.
    """
    if task.subject is not None and task.results is not None:
        from cmbprep.lab.training.scans import implant_scan, load_backgrounds, shown_coarser

        for background in load_backgrounds(task.results, [task.subject]):
            yield implant_scan(shown_coarser(background, rng), rng)
        return
    from cmbprep.lab.simulate.heads import load_template_head
    from cmbprep.lab.training.protocols import draw_protocol

    _, bleeds, rounds, count = FAMILIES[task.role]
    protocols = [draw_protocol(rng) for _ in range(count)]
    yield from simulate_scans(
        load_template_head(), protocols, microbleeds=bleeds, mimic_rounds=rounds, rng=rng
    )
