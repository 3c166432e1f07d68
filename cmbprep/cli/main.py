"""``cmbprep``: from arguments to an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cmbprep.errors import CmbprepError
from cmbprep.settings import Settings

from .parser import parse_settings

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status.

    Returns
    -------
    int
        0: all done; 1: some scans failed, the others are complete; 2: the arguments or
        the dataset are wrong, nothing was written.
    """
    try:
        settings = parse_settings(argv)
        if settings.level == "group":
            return _run_group_level(settings)
        from cmbprep.participant import run_participant_level

        return run_participant_level(settings)
    except CmbprepError as error:
        sys.stderr.write(f"cmbprep: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("cmbprep: stopped; finished scans are complete, run again to go on\n")
        return 130


def _run_group_level(settings: Settings) -> int:
    from cmbprep.group import run_group

    table = settings.bids_dir / "participants.tsv"
    result = run_group(settings.output_dir, participants_tsv=table if table.exists() else None)
    for note in result.notes:
        sys.stderr.write(f"cmbprep: {note}\n")
    sys.stderr.write(
        f"cmbprep: {result.n_scans} scans, {result.n_complete} complete; "
        f"the group report is {result.page}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
