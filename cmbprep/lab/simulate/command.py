"""The command ``cmbprep-tools simulate``."""

from __future__ import annotations

import argparse
import sys

from cmbprep.errors import UsageError


def run(args: argparse.Namespace) -> int:
    """Run ``simulate`` with parsed arguments; give the exit status.

    Raises
    ------
    UsageError
        If the arguments are wrong; nothing was written.
    """
    if args.protocol and "list" in args.protocol:
        return _list_protocols()
    if args.into is not None:
        return _implant(args)
    if args.participants is None:
        raise UsageError("the number of people is missing", hint="give --participants N")
    from cmbprep.lab.simulate.dataset import simulate_dataset
    from cmbprep.lab.simulate.variants import Variant

    variant = Variant(
        stripped=args.stripped,
        resampled=args.resampled,
        unitless=args.no_units,
        veins=args.veins,
        rim=args.rim,
        dura=args.dura,
    )
    simulate_dataset(
        args.dest,
        participants=args.participants,
        seed=args.seed,
        protocols=args.protocol,
        sites=args.sites,
        nprocs=args.nprocs,
        heads=args.heads,
        variant=variant,
        visits=args.visits,
        visit_protocols=args.visit_protocols or (),
        new_per_year=args.new_lesions,
        progress=_show,
    )
    sys.stdout.write(
        f"{args.dest}: {args.participants} simulated people; the truth is in derivatives/truth\n"
    )
    return 0


def _implant(args: argparse.Namespace) -> int:
    if args.heads is not None or args.participants is not None:
        raise UsageError("--into takes the people and heads of the dataset that it is given")
    if any((args.stripped, args.resampled, args.no_units, args.veins != 1, args.rim, args.dura)):
        raise UsageError("--into leaves the scans as they are: it takes no variants")
    from cmbprep.lab.simulate.implant_dataset import implant_dataset

    implant_dataset(args.into, args.dest, seed=args.seed, progress=_show)
    sys.stdout.write(f"{args.dest}: real scans with microbleeds put in; see derivatives/truth\n")
    return 0


def _list_protocols() -> int:
    from cmbprep.lab.simulate.protocols import PROTOCOLS

    for protocol in PROTOCOLS.values():
        voxel = " x ".join(f"{v:g}" for v in protocol.voxel)
        times = ", ".join(f"{1000 * t:g}" for t in protocol.echo_times)
        kind = "3D" if protocol.three_d else "2D"
        sys.stdout.write(
            f"{protocol.name:26s} {kind}, {protocol.field_strength:g} T, {voxel} mm, "
            f"TE {times} ms, {protocol.suffix}\n"
        )
    return 0


def _show(done: int, total: int, label: str) -> None:
    """Draw a bar on a terminal; write a line for each person elsewhere."""
    if sys.stderr.isatty():
        filled = round(30 * done / total)
        bar = "#" * filled + "." * (30 - filled)
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r[{bar}] {done}/{total} sub-{label}{end}")
    else:
        sys.stderr.write(f"[{done}/{total}] sub-{label}\n")
    sys.stderr.flush()
