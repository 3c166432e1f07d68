"""The demonstration: a small simulated dataset, processed from end to end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cmbprep.config import available_cpus
from cmbprep.errors import UsageError

PARTICIPANTS = 2
SEED = 2026
PROTOCOL = "demo"


def run(args: argparse.Namespace) -> int:
    """Run ``demo`` with parsed arguments; return the exit status."""
    return run_demo(args.folder, nprocs=args.nprocs)


def run_demo(folder: Path, *, nprocs: int | None = None) -> int:
    """Simulate, run the participant and the group level, and say where the reports are.

    Parameters
    ----------
    folder
        Where the demo goes. A dataset that an earlier demo has left there is used again,
        and finished results are kept.
    nprocs
        Processes at a time; all processors by default.

    Returns
    -------
    int
        Exit status of the levels.
    """
    from cmbprep.cli.main import main
    from cmbprep.lab.simulate.dataset import simulate_dataset

    bids, out = folder / "bids", folder / "derivatives"
    processes = nprocs or available_cpus()
    if (bids / "dataset_description.json").exists():
        sys.stdout.write(f"The dataset in {bids} is used again.\n")
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(
            "this folder is not empty, and not a demo",
            path=folder,
            hint="give the demo a folder of its own",
        )
    else:
        sys.stdout.write(f"Simulating {PARTICIPANTS} participants into {bids} ...\n")
        simulate_dataset(
            bids, participants=PARTICIPANTS, seed=SEED, protocols=[PROTOCOL], nprocs=processes
        )
    for level in ("participant", "group"):
        status = main([str(bids), str(out), level, "--nprocs", str(processes)])
        if status:
            return status
    reports = "\n".join(f"  {path.resolve()}" for path in sorted(out.glob("*.html")))
    sys.stdout.write(
        f"\nThe demo is done. The microbleeds in it are simulated.\nReports:\n{reports}\n"
        f"Results: {out.resolve()}\nTruth: {(bids / 'derivatives' / 'truth').resolve()}\n"
    )
    return 0
