"""Anatomy measured against known truth: ``python benchmarks/anatomy COMMAND``.

    python benchmarks/anatomy zones --people 6       zones of probes in simulated people
    python benchmarks/anatomy transforms --real DIR  known transforms of real heads
    python benchmarks/anatomy broken --people 3      are spoilt inputs noticed?
    python benchmarks/anatomy redrawing --real DIR   what redrawing the template brings
    python benchmarks/anatomy judgement --people 42 --contrasts 1   scans of every contrast

``--tuning`` takes the people that thresholds were set on instead of those that figures are
reported on. ``--write-docs`` writes the command's table where ``docs/validation/anatomy.md``
includes it. ``--cache`` keeps simulated people (about 60 MB each). ``judgement`` goes on from the
rows in its ``--json``. Images go through the
program's own functions, without its workflow engine.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(_name, "1")


def main() -> int:
    """Run a sub-command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("zones", "transforms", "broken", "redrawing", "judgement"):
        command = commands.add_parser(name)
        command.add_argument("--people", type=int, default=3, help="simulated people")
        command.add_argument("--skip", type=int, default=0, help="leave out the first people")
        command.add_argument("--tuning", action="store_true", help="not those of the report")
        command.add_argument("--cache", type=Path, default=Path("anatomy-cache"))
        command.add_argument("--real", type=Path, help="BIDS dataset of real heads")
        command.add_argument("--only", help="cases whose name holds this")
        command.add_argument("--scan", choices=("thin", "thick"), help="spoil this one alone")
        command.add_argument("--json", type=Path, help="keep every row")
        command.add_argument("--also", type=Path, nargs="*", default=[], help="rows kept before")
        command.add_argument("--contrasts", type=int, help="of a person, in turn; all by default")
        command.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args()
    start = time.perf_counter()
    if arguments.command == "zones":
        from zones import zones as run
    elif arguments.command == "transforms":
        from transforms import transforms as run
    elif arguments.command == "judgement":
        from judgement import judgement as run
    elif arguments.command == "redrawing":
        from redrawing import redrawing as run
    else:
        from broken import broken as run
    table = run(arguments)
    print(table)
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
    if arguments.write_docs:
        sys.path.append(str(Path(__file__).resolve().parents[1]))
        from tables import save_tables

        save_tables(table, f"anatomy-{arguments.command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
