"""``cmbprep-tools review``: read the lesions of an output dataset in a browser."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmbprep.errors import CmbprepError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmbprep.review.session import ReviewSession


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
    _add_choice(parser)
    _add_manner(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
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
    what.add_argument(
        "--disagreements",
        action="store_true",
        help="only scans on which the readers disagree, with what each of them decided",
    )


def _port(text: str) -> int:
    """Parse a port; 0 stands for a free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")
    return int(text)


def _add_manner(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how")
    how.add_argument(
        "--port", type=_port, default=0, metavar="P", help="port on 127.0.0.1 (default: a free one)"
    )
    how.add_argument(
        "--no-browser", action="store_true", help="print the address and open no browser"
    )
    how.add_argument(
        "--static",
        nargs="?",
        const="",
        metavar="DIR",
        help="write one file per scan that needs no server, and end (default: OUTPUT_DIR/review)",
    )
    how.add_argument(
        "--import",
        dest="files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="take in files that static pages have saved, and end",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    from cmbprep.outputs.dataset import write_ignored
    from cmbprep.ratings.store import Reader, require_own_names
    from cmbprep.reports.usable import find_output, usable_results
    from cmbprep.review.scans import dataset_name, find_scans, raw_dataset
    from cmbprep.review.session import ReviewSession
    from cmbprep.review.worklist import choose

    root = arguments.output_dir
    if not root.is_dir() or find_output(root) != root:
        raise UsageError(
            "this is not an output folder of cmbprep",
            path=root,
            hint="give the OUTPUT_DIR of a run of the participant level",
        )
    if not os.access(root, os.W_OK):
        raise UsageError("this folder cannot be written to", path=root)
    if arguments.files:
        return _import(arguments.files, root)
    name = getpass.getuser() if arguments.reader is None else arguments.reader
    reader = Reader(name=name, round=arguments.round)
    everything = find_scans(root)
    for name, reason in sorted(usable_results(root).unusable.items()):
        sys.stderr.write(f"{name} cannot be read: {reason}\n")
    automatics = [scan.automatic for scan in everything.values()]
    require_own_names(((item.folder, item.src) for item in automatics), reader)
    chosen = choose(
        everything,
        names=arguments.scan,
        list_file=arguments.list,
        sample=arguments.sample,
        seed=arguments.seed,
        disagreements=arguments.disagreements,
    )
    if not chosen:
        what = "on which readers disagree" if arguments.disagreements else "with a complete result"
        raise UsageError(f"there is no scan {what}", path=root)
    write_ignored(root)
    session = ReviewSession(
        root,
        reader,
        chosen,
        all_scans=everything,
        blinded=arguments.blinded,
        settling=arguments.disagreements,
        raw=raw_dataset(root),
        dataset=dataset_name(root),
    )
    if arguments.static is not None:
        return _write_static(session, Path(arguments.static or root / "review"))
    return _serve(session, arguments)


def _import(files: Sequence[Path], root: Path) -> int:
    """Take in exported files; return 1 if one was refused."""
    from cmbprep.outputs.dataset import write_ignored
    from cmbprep.review.importing import import_file
    from cmbprep.review.scans import find_scans

    scans = find_scans(root)
    write_ignored(root)
    status = 0
    for path in files:
        try:
            found = import_file(path, root, scans)
        except CmbprepError as error:
            sys.stderr.write(f"cmbprep-tools: {error}\n")
            status = 1
            continue
        state = "read to the end" if found.finished else "not read to the end"
        sys.stdout.write(
            f"{found.scan}: {found.new} acts of {found.reader.name}, round {found.reader.round}, "
            f"taken in, {found.known} known; {state}\n"
        )
        for text in found.skipped:
            sys.stderr.write(f"cmbprep-tools: {path.name}: left out: {text}\n")
    return status


def _write_static(session: ReviewSession, folder: Path) -> int:
    from cmbprep.review.static import write_static

    for name in session.scans:
        sys.stdout.write(f"{write_static(session, name, folder)}\n")
        sys.stdout.flush()
    session.close()
    return 0


def _serve(session: ReviewSession, arguments: argparse.Namespace) -> int:
    from cmbprep.review.server import Server

    try:
        server = Server.bind(arguments.port)
    except OSError as error:
        raise UsageError(
            f"the port {arguments.port} cannot be used ({error.strerror})",
            hint="give another --port, or none",
        ) from error
    reader = session.reader
    count = len(session.scans)
    sys.stdout.write(f"Scans: {count}; reader: {reader.name}, round {reader.round}\n")
    sys.stdout.write(f"Open {server.address}\nPress Ctrl+C to end.\n")
    sys.stdout.flush()
    if not arguments.no_browser:
        import webbrowser

        webbrowser.open(server.address)
    session.catch_up()
    try:
        server.run(session)
    finally:
        session.close()
    return 0
