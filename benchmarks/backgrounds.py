"""Make the table of backgrounds that ``benchmarks/detection.py`` reads, from results of cmbprep.

    python benchmarks/backgrounds.py OUTPUT_DIR TABLE --participant-label s1 niivue

Each scan becomes one row with the role ``report``: leave out participants that a fit has
seen, and those with microbleeds of their own.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

from cmbprep.outputs.stages import find_records

COLUMNS = ("name", "image", "mask", "role", "power", "thickness", "weight", "exclude")


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--participant-label", nargs="+", required=True)
    arguments = parser.parse_args()
    with open(arguments.table, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for label in arguments.participant_label:
            records = find_records(
                arguments.output_dir, "preproc", subject=label.removeprefix("sub-")
            )
            if not records:
                raise SystemExit(f"there are no results of {label} in {arguments.output_dir}")
            for record in records:
                image, mask = (
                    os.path.relpath(record.files.path(key), arguments.table.parent)
                    for key in ("preproc", "brain_mask")
                )
                names = record.files.names
                name = f"{names.subject}-{names.src}_{names.suffix}"
                writer.writerow([name, image, mask, "report", 1, 0, 1, ""])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
