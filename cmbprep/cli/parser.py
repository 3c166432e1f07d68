"""Arguments of ``cmbprep``, and the settings that they make."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from cmbprep import __version__
from cmbprep.bids.derivatives import parse_folders
from cmbprep.cli.arguments import ArgumentParser, read_labels
from cmbprep.config import CONSENSUS, LEVELS, REPORT_PER, SCHEMES, Settings, available_cpus
from cmbprep.zones.burden import PATTERN_RULES

#: Title of a group -> setting -> how its option is written, and what it does.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "what to process": {
        "participants": "--participant-label L: participants to process, with or without sub- "
        "(default: all)",
        "sessions": "--session-label S: sessions to process, with or without ses- (default: all)",
        "filter_file": "--bids-filter-file F: JSON file with BIDS entities that the scans must "
        "have, as for fMRIPrep",
        "derivatives": "-d --derivatives NAME=PATH: folders of fMRIPrep, sMRIPrep, FreeSurfer or "
        "FastSurfer (NAME= may be left out): their T1w image, brain masks, segmentation and "
        "transforms are used instead of made again, and zones come from the person's own "
        "segmentation",
        "validate": "--skip-bids-validation: go on when dataset_description.json is missing or "
        "wrong",
    },
    "how to process": {
        "template": "--template ID: TemplateFlow id of the output space (default: %(default)s, "
        "which is packaged)",
        "scheme": "--scheme: anatomical rating scale that names the zones (default: %(default)s)",
        "white_matter_border": "--white-matter-border MM: border in white matter that the scale "
        "leaves open: distance from a lateral ventricle up to which it is deep and "
        "periventricular (mars, default: 10), or from cortex up to which it is grey-white "
        "junction (bombs, default: 1.5)",
        "detector": "--detector {learned,classical,FILE.onnx,FILE.json}: detector of microbleeds: "
        "one of the program's own, or the file of a network of yours (default: %(default)s)",
        "threshold": "--threshold P: lowest probability that is listed (default: the detector's "
        "own)",
        "offline": "--offline: never fetch a template from the network",
    },
    "whose lesions count in reports and group tables, where scans were read in cmbprep-tools "
    "review": {
        "reader": "--reader NAME: those of this reader, who has read scans to the end "
        "(default: those of the only reader)",
        "consensus": "--consensus: those that any, all or the majority of the readers call "
        "microbleeds, or those of the reader who finished first",
        "automatic": "--automatic: those of the detector, also where scans were read",
    },
    "tables and reports": {
        "pattern_rule": "--pattern-rule: what microbleeds in the cerebellum count as in the "
        "pattern: neither lobar nor deep (boston, as in the Boston criteria), or deep (default: "
        "%(default)s)",
        "report_per": "--report-per: one page for each participant, or for each session (default: "
        "%(default)s)",
        "reports_only": "--reports-only: write the reports of finished results anew",
    },
    "group level": {
        "baseline_session": "--baseline-session S: session that is the baseline of every "
        "participant, with or without ses- (default: the earliest, by acq_time in scans.tsv or "
        "sessions.tsv, else by the order of the rows in sessions.tsv)",
        "models": "--model FORMULA: models of the counts, as for statsmodels, for instance "
        '"n_definite ~ age + hypertension + C(site)"',
        "nuisance": "--nuisance TERM: terms of the acquisition in all models: field, te, sequence, "
        "slice, manufacturer",
        "cluster": "--cluster COLUMN: make standard errors of the models robust to clusters, such "
        "as site",
        "strata": "--strata NAME: fit the models apart in each level of a term of the acquisition "
        "(as for --nuisance) or of a column, such as site, and pool the coefficients",
        "draws": "--draws N: refit models of automatic counts N times, each lesion kept with its "
        "probability; 0 for not (default: %(default)s)",
        "strict": "--strict: write nothing where results were made with different settings, or a "
        "table is damaged, changed or doubtful; say what and where",
        "deidentified": "--deidentified: leave dates, paths, free text and names of readers out of "
        "the group tables and the page, and list what could still identify a person",
    },
    "how to run": {
        "nprocs": "--nprocs N: processes at a time (default: all processors)",
        "omp_nthreads": "--omp-nthreads N: processors set aside for a registration, which works on "
        "two threads; results do not depend on it (default: %(default)s)",
        "mem_gb": "--mem GB: memory to use",
        "work_dir": "-w --work-dir DIR: folder for intermediate files (default: OUTPUT_DIR/.work)",
        "keep_work": "--keep-work: keep intermediate files after success",
        "plugin_file": "--plugin-file F: JSON or YAML file with a nipype plugin and its arguments, "
        "for clusters",
        "stop_on_first_crash": "--stop-on-first-crash: stop when the first scan fails",
        "dry_run": "--dry-run: say what would be done, and do nothing",
    },
}


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
        choices=LEVELS,
        help="participant: process scans; group: make cohort tables from OUTPUT_DIR",
    )
    parser.add_argument("--version", action="version", version=f"cmbprep {__version__}")
    parser.add_argument(
        "-v", dest="verbosity", action="count", default=0, help="say more; twice: debug"
    )
    declared = {item.name: item for item in fields(Settings)}
    for title, options in _OPTIONS.items():
        group = parser.add_argument_group(title)
        for name, option in options.items():
            spelling, _, text = option.partition(": ")
            *flags, last = spelling.split()
            more = {"dest": name, "help": text, **_reading(declared[name])}
            if last.startswith("-"):
                group.add_argument(*flags, last, **more)
            else:
                group.add_argument(*flags, metavar=last, **more)
    parser.set_defaults(nprocs=available_cpus())
    return parser


def _reading(setting: Field[Any]) -> dict[str, Any]:
    """Return how :mod:`argparse` reads a setting, by its type and default."""
    kind = str(setting.type).partition(" |")[0]
    if kind == "bool":
        return {"action": "store_false" if setting.default else "store_true"}
    if kind.startswith("tuple"):
        return {"nargs": "+", "action": "extend", "default": []}
    known = {
        "scheme": SCHEMES,
        "consensus": CONSENSUS,
        "report_per": REPORT_PER,
        "pattern_rule": tuple(PATTERN_RULES),
    }.get(setting.name)
    choices = {} if known is None else {"choices": known}
    types = {"Path": _path, "int": int, "float": float}
    return {"type": types.get(kind, str), "default": setting.default, **choices}


def _path(text: str) -> Path:
    """Read a path; an empty one, as of a variable that is not set, is none."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; check that its variable is set")
    return Path(text)


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
    if values["baseline_session"] is not None:
        option = "--baseline-session"
        (values["baseline_session"],) = read_labels([values["baseline_session"]], "ses-", option)
    values["models"] = tuple(values["models"])
    terms = (word for text in values["nuisance"] for word in text.split(","))
    values["nuisance"] = tuple(dict.fromkeys(word.strip() for word in terms if word.strip()))
    values["derivatives"] = parse_folders(values["derivatives"])
    return Settings(**values)


def options_without_effect(settings: Settings) -> list[str]:
    """Return the options that were given and belong to the other level alone."""
    declared = {item.name: item for item in fields(Settings)}
    group = settings.level == "group"
    titles = ("what to process", "how to process") if group else ("group level",)
    given = [
        option.partition(": ")[0]
        for title in titles
        for name, option in _OPTIONS[title].items()
        # A script gives the group level the switches of the participant level, such as --offline.
        if not (group and declared[name].type == "bool")
        and getattr(settings, name) != declared[name].default
    ]
    return [next(word for word in spelling.split() if word.startswith("--")) for spelling in given]
