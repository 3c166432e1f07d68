"""``cmbprep-tools review``: read the lesions of an output dataset in a browser."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.errors import UsageError

if TYPE_CHECKING:
    from cmbprep.ratings.store import Reader
    from cmbprep.review.scans import ReviewScan

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.description = (
        "Read the lesions of an output dataset in a browser. The page is served on this machine "
        "only; what the reader does is stored at once beside the results, which do not change."
    )
    parser.add_argument(
        "output_dir", type=Path, metavar="OUTPUT_DIR", help="output folder of cmbprep"
    )
    who = parser.add_argument_group("reader")
    who.add_argument("--reader", metavar="NAME", help="who reads (default: the user's name)")
    who.add_argument(
        "--round",
        type=int,
        default=1,
        metavar="N",
        help="number of the round, for a reader who reads the same scans again (default: 1)",
    )
    who.add_argument(
        "--blinded",
        action="store_true",
        help="hide probabilities, ratings and counts of the detector",
    )
    what = parser.add_argument_group("what is read")
    what.add_argument(
        "--scan",
        nargs="+",
        default=[],
        metavar="NAME",
        help="participants, sessions or scans, as sub-01, sub-01_ses-a or sub-01_T2starw",
    )
    what.add_argument("--list", type=Path, metavar="FILE", help="a file with one such name a line")
    what.add_argument("--sample", type=int, metavar="N", help="so many scans, drawn at random")
    what.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of the sample (default: 0)"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--port", type=int, default=0, metavar="P", help="port on 127.0.0.1 (default: a free one)"
    )
    how.add_argument(
        "--no-browser", action="store_true", help="print the address and open no browser"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    from cmbprep.ratings.store import Reader
    from cmbprep.reports.usable import find_output
    from cmbprep.review.scans import find_scans
    from cmbprep.review.worklist import choose

    root = arguments.output_dir
    if not root.is_dir() or find_output(root) != root:
        raise UsageError(
            "this is not an output folder of cmbprep",
            path=root,
            hint="give the OUTPUT_DIR of a run of the participant level",
        )
    reader = Reader(name=arguments.reader or getpass.getuser(), round=arguments.round)
    everything = find_scans(root)
    chosen = choose(
        everything,
        names=arguments.scan,
        list_file=arguments.list,
        sample=arguments.sample,
        seed=arguments.seed,
    )
    if not chosen:
        raise UsageError("there is no scan with a complete result", path=root)
    return _serve(arguments, root, reader, everything, chosen)


def _serve(
    arguments: argparse.Namespace,
    root: Path,
    reader: Reader,
    everything: dict[str, ReviewScan],
    chosen: dict[str, ReviewScan],
) -> int:
    from cmbprep.outputs.dataset import write_ignored
    from cmbprep.review.scans import dataset_name, raw_dataset
    from cmbprep.review.server import Server
    from cmbprep.review.session import ReviewSession

    session = ReviewSession(
        root,
        reader,
        chosen,
        all_scans=everything,
        blinded=arguments.blinded,
        raw=raw_dataset(root),
        dataset=dataset_name(root),
    )
    try:
        server = Server.bind(arguments.port)
    except OSError as error:
        raise UsageError(
            f"the port {arguments.port} cannot be used ({error.strerror})",
            hint="give another --port, or none",
        ) from error
    sys.stdout.write(f"Review of {len(chosen)} scans by {reader.name}, round {reader.round}\n")
    sys.stdout.write(f"Open {server.address}\nPress Ctrl+C to end.\n")
    sys.stdout.flush()
    if not arguments.no_browser:
        import webbrowser

        webbrowser.open(server.address)
    write_ignored(root)
    session.catch_up()
    try:
        server.run(session)
    finally:
        session.close()
    return 0
