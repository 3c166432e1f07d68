"""The settings of one run: what the command line says, checked once.

Settings travel no further than :mod:`cmbprep.workflows.base`; the workflows take plain
values, so that a node's hash tells what its result depends on.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cmbprep.bids.derivatives import DerivativeFolder
from cmbprep.errors import CmbprepError, UsageError
from cmbprep.running.places import (
    check_current_folder,
    check_folder,
    check_outside,
    check_temporary_folder,
    resolve,
)
from cmbprep.running.plugin_file import MAX_PROCESSES, MIN_MEMORY_GB
from cmbprep.zones.burden import DEFAULT_RULE, PATTERN_RULES

DEFAULT_TEMPLATE = "MNI152NLin2009cAsym"
SCHEMES = ("mars", "bombs")
LEVELS = ("participant", "group")
#: What a page of the reports is for.
REPORT_PER = ("participant", "session")
#: Rules by which several readers of a scan are put together.
CONSENSUS = ("any", "all", "majority", "first")


def available_cpus() -> int:
    """Count the processors that this process may use (Slurm and taskset restrict it)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run was asked to do.

    Raises
    ------
    UsageError
        When a value cannot be right; nothing has been written then.
    """

    bids_dir: Path
    output_dir: Path
    level: str
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filter_file: Path | None = None
    validate: bool = True
    work_dir: Path | None = None
    nprocs: int = 1
    omp_nthreads: int = 1
    mem_gb: float | None = None
    plugin_file: Path | None = None
    stop_on_first_crash: bool = False
    keep_work: bool = False
    template: str = DEFAULT_TEMPLATE
    scheme: str = "mars"
    white_matter_border: float | None = None
    derivatives: tuple[DerivativeFolder, ...] = ()
    offline: bool = False
    detector: str = "learned"
    threshold: float | None = None
    reader: str | None = None
    consensus: str | None = None
    automatic: bool = False
    pattern_rule: str = DEFAULT_RULE
    report_per: str = "participant"
    reports_only: bool = False
    strict: bool = False
    deidentified: bool = False
    baseline_session: str | None = None
    models: tuple[str, ...] = ()
    nuisance: tuple[str, ...] = ()
    cluster: str | None = None
    strata: str | None = None
    draws: int = 20
    dry_run: bool = False
    verbosity: int = 0

    def __post_init__(self) -> None:
        check_current_folder()
        # Nodes run in folders of their own, so a relative path would lead elsewhere there.
        for name in ("bids_dir", "output_dir", "work_dir"):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, path.absolute())
        if self._model is not None:
            object.__setattr__(self, "detector", str(self._model.absolute()))
        for name, known in (
            ("level", LEVELS),
            ("scheme", SCHEMES),
            ("report_per", REPORT_PER),
            ("pattern_rule", tuple(PATTERN_RULES)),
        ):
            if (value := getattr(self, name)) not in known:
                raise UsageError(
                    f"the {name.replace('_', ' ')} {value!r} is none of {', '.join(known)}"
                )
        self._check_readers()
        self._check_numbers()
        for path, option in (
            (self.filter_file, "--bids-filter-file"),
            (self.plugin_file, "--plugin-file"),
            (self._model, "--detector"),
        ):
            if path is not None and not path.is_file():
                raise UsageError(
                    "there is no such file", path=path, hint=f"check the path given to {option}"
                )
        self._check_places()

    def _check_readers(self) -> None:
        given = {
            "--reader": self.reader is not None,
            "--consensus": self.consensus is not None,
            "--automatic": self.automatic,
        }
        chosen = [option for option, is_given in given.items() if is_given]
        if len(chosen) > 1:
            raise UsageError(
                f"{' and '.join(chosen)} exclude each other", hint="give one of these options"
            )
        if self.consensus is not None and self.consensus not in CONSENSUS:
            raise UsageError(f"the rule {self.consensus!r} is none of {', '.join(CONSENSUS)}")

    def _check_numbers(self) -> None:
        for name in ("nprocs", "omp_nthreads"):
            if not 1 <= getattr(self, name) <= MAX_PROCESSES:
                raise UsageError(
                    f"--{name.replace('_', '-')} must be at least 1 and at most {MAX_PROCESSES}"
                )
        # Comparisons with "nan" are false, so each says what is right.
        if self.mem_gb is not None and not MIN_MEMORY_GB <= self.mem_gb < math.inf:
            raise UsageError(
                f"--mem must be a number of at least {MIN_MEMORY_GB:g} GB",
                hint="give the memory in GB that may be used, for instance --mem 8",
            )
        if self.white_matter_border is not None and not 0 < self.white_matter_border <= 50:
            raise UsageError("--white-matter-border must be more than 0 and at most 50 mm")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UsageError("--threshold is a probability: more than 0 and less than 1")

    def _check_places(self) -> None:
        raw, out = resolve(self.bids_dir), resolve(self.output_dir)
        another = "check its permissions, or give another output folder"
        if self.level == "participant" and not self.reports_only and not raw.is_dir():
            raise UsageError(
                "there is no such folder",
                path=self.bids_dir,
                hint="give the top folder of a BIDS dataset as the first argument",
            )
        check_outside(self.output_dir, raw, what="output")
        self._refuse_foreign_dataset(out)
        check_folder(self.output_dir, hint=another)
        if self.level != "participant":
            return
        check_folder(self.output_dir / "logs", hint=another)
        check_temporary_folder()
        if self.reports_only:
            return
        check_folder(self.output_dir / ".work", hint=another)
        if self.work_dir is not None:
            check_outside(self.work_dir, raw, what="work")
            check_folder(self.work_dir, hint="give another work folder with --work-dir")

    @staticmethod
    def _refuse_foreign_dataset(out: Path) -> None:
        from cmbprep.outputs.files import read_json

        path = out / "dataset_description.json"
        if not os.path.lexists(path):
            return
        try:
            makers, damaged = read_json(path).get("GeneratedBy"), False
        except CmbprepError:
            # It is written anew if all else says that the folder is ours.
            makers, damaged = None, True
        listed = makers if isinstance(makers, list) else []
        names = [maker.get("Name") for maker in listed if isinstance(maker, dict)]
        if "cmbprep" in names or (damaged and _looks_like_ours(out)):
            return
        raise UsageError(
            "the output folder already holds another dataset",
            path=out,
            hint="give an empty folder, or one that cmbprep has written",
        )

    @property
    def _model(self) -> Path | None:
        """File of the detector, where it is not one of the program's own."""
        path = Path(self.detector)
        return path if path.suffix.lower() in (".onnx", ".json") else None

    @property
    def work(self) -> Path:
        """Folder for intermediate files."""
        return (self.work_dir or self.output_dir / ".work").resolve()

    def describe(self) -> str:
        """Return the settings as lines for the log."""
        return "\n".join(f"  {name} = {value}" for name, value in asdict(self).items())


def _looks_like_ours(out: Path) -> bool:
    """Return whether a folder without a sound description was written by cmbprep."""
    try:
        ignored = (out / ".bidsignore").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        ignored = []
    marked = {".work/", "*_desc-computed_swi.*"} <= set(ignored)
    return (out / "logs").is_dir() and (marked or any((out / "logs").glob("cmbprep-*.log")))
