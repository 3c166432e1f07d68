"""``cmbprep-tools agreement``: how far readers agree with each other and with the detector."""

from __future__ import annotations

import argparse
import sys

from cmbprep.errors import UsageError
from cmbprep.group.agreement import read
from cmbprep.group.agreement_tables import Agreement
from cmbprep.outputs.dataset import write_ignored
from cmbprep.outputs.files import write_json
from cmbprep.reports.usable import find_output


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    root = arguments.output_dir
    if not 0 < arguments.match_distance < float("inf"):
        raise UsageError("--match-distance must be above 0 mm")
    if arguments.bootstrap < 0 or arguments.seed < 0:
        raise UsageError("--bootstrap and --seed must not be negative")
    if not root.is_dir() or find_output(root) != root:
        raise UsageError(
            "this is not an output folder of cmbprep",
            path=root,
            hint="give the OUTPUT_DIR of a run of the participant level",
        )
    cohort = read(root, pattern_rule=arguments.pattern_rule)
    if not cohort.read:
        left = "; ".join(f"{len(n)} {reason}" for reason, n in cohort.left_out.items() if n)
        raise UsageError(
            f"no scan was read to the end ({left})",
            path=root,
            hint="read scans with cmbprep-tools review, and finish them",
        )
    agreement = Agreement.compute(
        cohort,
        distance_mm=arguments.match_distance,
        n_draws=arguments.bootstrap,
        seed=arguments.seed,
        rule=arguments.consensus,
    )
    write_ignored(root)
    agreement.write(root)
    if arguments.json is not None:
        write_json(arguments.json, agreement.to_json())
    sys.stdout.write(agreement.summary())
    return 0
