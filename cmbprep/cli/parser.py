"""Arguments of ``cmbprep``, and the settings that they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cmbprep import __version__
from cmbprep.bids.derivatives import parse_folders
from cmbprep.cli.arguments import ArgumentParser, read_labels
from cmbprep.config import DEFAULT_TEMPLATE, SCHEMES, Settings, available_cpus

__all__ = ["build_parser", "parse_settings"]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the ``cmbprep`` command."""
    parser = ArgumentParser(
        prog="cmbprep",
        description="Find cerebral microbleeds on T2*-weighted, GRE and SWI images of a BIDS "
        "dataset, place them in anatomical zones, and report. Research use, not a diagnosis.",
        epilog="Exit status: 0 all done; 1 some scans failed, the others are complete; "
        "2 the arguments or the dataset are wrong, nothing written. Options may be written with "
        "underscores, as --participant_label.",
    )
    parser.add_argument("bids_dir", type=_path, metavar="BIDS_DIR", help="raw BIDS dataset")
    parser.add_argument(
        "output_dir", type=_path, metavar="OUTPUT_DIR", help="where the derivatives go"
    )
    parser.add_argument(
        "level",
        choices=("participant", "group"),
        help="participant: process scans; group: make cohort tables from OUTPUT_DIR",
    )
    parser.add_argument("--version", action="version", version=f"cmbprep {__version__}")
    parser.add_argument(
        "-v", dest="verbosity", action="count", default=0, help="say more; twice: debug"
    )
    _add_input_arguments(parser)
    _add_method_arguments(parser)
    _add_running_arguments(parser)
    return parser


def _path(text: str) -> Path:
    """Read a path; an empty one, as of a variable that is not set, is none."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; check that its variable is set")
    return Path(text)


def _add_input_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to process")
    group.add_argument(
        "--participant-label",
        dest="participants",
        metavar="L",
        nargs="+",
        action="extend",
        default=[],
        help="participants to process, with or without sub- (default: all)",
    )
    group.add_argument(
        "--session-label",
        dest="sessions",
        metavar="S",
        nargs="+",
        action="extend",
        default=[],
        help="sessions to process, with or without ses- (default: all)",
    )
    group.add_argument(
        "--bids-filter-file",
        dest="filter_file",
        type=_path,
        metavar="F",
        help="JSON file with BIDS entities that the scans must have, as for fMRIPrep",
    )
    group.add_argument(
        "-d",
        "--derivatives",
        metavar="NAME=PATH",
        nargs="+",
        action="extend",
        default=[],
        help="folders of fMRIPrep, sMRIPrep, FreeSurfer or FastSurfer (NAME= may be left out): "
        "their T1w image, brain masks, segmentation and transforms are used instead of made "
        "again, and zones come from the person's own segmentation",
    )
    group.add_argument(
        "--skip-bids-validation",
        dest="validate",
        action="store_false",
        help="go on when dataset_description.json is missing or wrong",
    )


def _add_method_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to process")
    group.add_argument(
        "--template",
        default=DEFAULT_TEMPLATE,
        metavar="ID",
        help="TemplateFlow id of the output space (default: %(default)s, which is packaged)",
    )
    group.add_argument(
        "--scheme",
        choices=SCHEMES,
        default="mars",
        help="anatomical rating scale that names the zones (default: %(default)s)",
    )
    group.add_argument(
        "--white-matter-border",
        type=float,
        metavar="MM",
        help="border in white matter that the scale leaves open: distance from a lateral "
        "ventricle up to which it is deep and periventricular (mars, default: 10), or from "
        "cortex up to which it is grey-white junction (bombs, default: 1.5)",
    )
    group.add_argument(
        "--detector",
        default="learned",
        metavar="{learned,classical,FILE.onnx,FILE.json}",
        help="detector of microbleeds: one of the program's own, or the file of a network of "
        "yours (default: %(default)s)",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="lowest probability that is listed (default: the detector's own)",
    )
    group.add_argument(
        "--offline", action="store_true", help="never fetch a template from the network"
    )


def _add_running_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to run")
    group.add_argument(
        "--nprocs", type=int, metavar="N", help="processes at a time (default: all processors)"
    )
    group.add_argument(
        "--omp-nthreads",
        type=int,
        metavar="N",
        default=1,
        help="processors set aside for a registration, which works on two threads; results do "
        "not depend on it (default: %(default)s)",
    )
    group.add_argument("--mem", dest="mem_gb", type=float, metavar="GB", help="memory to use")
    group.add_argument(
        "-w",
        "--work-dir",
        type=_path,
        metavar="DIR",
        help="folder for intermediate files (default: OUTPUT_DIR/.work)",
    )
    group.add_argument(
        "--keep-work", action="store_true", help="keep intermediate files after success"
    )
    group.add_argument(
        "--plugin-file",
        type=_path,
        metavar="F",
        help="JSON or YAML file with a nipype plugin and its arguments, for clusters",
    )
    group.add_argument(
        "--stop-on-first-crash", action="store_true", help="stop when the first scan fails"
    )
    group.add_argument(
        "--reports-only", action="store_true", help="write the reports of finished results anew"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )


def parse_settings(argv: Sequence[str] | None = None) -> Settings:
    """Parse and check the arguments.

    Raises
    ------
    UsageError
        When a value cannot be right.
    SystemExit
        From argparse: for ``--help`` and ``--version`` (0), for unknown arguments (2).
    """
    values = vars(build_parser().parse_args(argv))
    values["participants"] = read_labels(values["participants"], "sub-", "--participant-label")
    values["sessions"] = read_labels(values["sessions"], "ses-", "--session-label")
    values["derivatives"] = parse_folders(values["derivatives"])
    if values["nprocs"] is None:
        values["nprocs"] = available_cpus()
    return Settings(**values)
