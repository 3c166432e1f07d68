"""Stages of each scan to compute, and stages to reuse.

The plan is made before any workflow: it hashes the input, asks the output dataset what
it already holds, and says for each stage whether and why it will run. Nothing here
opens an image or loads a heavy library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from cmbprep.bids.model import Anatomy, GivenFile, Scan, Unit
from cmbprep.outputs.files import file_digest
from cmbprep.outputs.names import Names, plan_names
from cmbprep.outputs.stages import StageFiles, fingerprint
from cmbprep.templates import Template
from cmbprep.zones.schemes import Scheme, get_scheme


@dataclass(frozen=True, kw_only=True)
class Method:
    """How scans are processed: the part of the settings that results depend on.

    Parameters
    ----------
    reference
        The packaged template: the space of the zone atlas.
    template
        The output template; the same object when none other was asked for.
    scheme
        Name of the zone scheme, in lower case.
    detector
        Name of the detector, or path of its model.
    detector_parameters
        What the detector's result depends on, with its version.
    threshold
        Lowest probability listed; None for the detector's own.
    border_mm
        Border in white matter; None for the scheme's own.
    """

    reference: Template
    template: Template
    scheme: str
    detector: str
    detector_parameters: Mapping[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    border_mm: float | None = None

    @property
    def zone_scheme(self) -> Scheme:
        """The scheme with the border asked for."""
        return get_scheme(self.scheme, self.border_mm)

    @property
    def moved_border(self) -> bool:
        """Whether the packaged atlas, drawn with the scheme's own border, is of no use."""
        return self.zone_scheme != get_scheme(self.scheme)

    @property
    def lesion_parameters(self) -> dict[str, Any]:
        """What the stage ``lesions`` depends on besides its input."""
        return {
            # Not its folder: the hash of its content is among the parameters.
            "detector": PurePath(self.detector).name,
            "detector_parameters": dict(self.detector_parameters),
            "threshold": self.threshold,
            "scheme": self.scheme,
            "template": self.template.id,
            **({"border_mm": self.border_mm} if self.moved_border else {}),
        }

    @property
    def scheme_parameters(self) -> dict[str, Any]:
        """What the record of the stage ``lesions`` says of its zone scheme besides the name."""
        scheme = self.zone_scheme
        return {
            "scheme_version": scheme.version,
            "border": scheme.border,
            "border_mm": scheme.border_mm,
            "tolerance_mm": scheme.tolerance_mm,
        }


@dataclass(frozen=True)
class StagePlan:
    """One stage of one scan: its files, and whether they are there already."""

    files: StageFiles
    fingerprint: str
    reused: Mapping[str, Path] | None
    reason: str

    @property
    def todo(self) -> bool:
        """Whether the stage has to be computed."""
        return self.reused is None

    def describe(self, name: str) -> str:
        """Write a line for the log and for ``--dry-run``; ``name`` is that of the image."""
        verb = "run" if self.todo else "reuse"
        return f"{verb} {self.files.stage} of {name} ({self.reason})"


@dataclass(frozen=True)
class AnatomyPlan:
    """A T1w image, and its stage."""

    anatomy: Anatomy
    stage: StagePlan


@dataclass(frozen=True)
class ScanPlan:
    """A scan, the T1w image that goes with it, and its stages.

    Parameters
    ----------
    problem
        Why the scan cannot be processed, found before anything is computed; None if nothing
        is wrong.
    """

    scan: Scan
    anatomy: AnatomyPlan | None
    preproc: StagePlan
    lesions: StagePlan
    problem: str | None = None

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        """Every stage that a complete scan has, that of its T1w image first."""
        first = () if self.anatomy is None else (self.anatomy.stage,)
        return (*first, self.preproc, self.lesions)

    @property
    def todo(self) -> bool:
        """Whether anything of the scan has to be computed."""
        return self.problem is None and any(stage.todo for stage in self.stages)

    @property
    def segmentation(self) -> GivenFile | None:
        """The person's own segmentation, which zones are then drawn from."""
        given = self.anatomy.anatomy.given if self.anatomy else None
        return given.segmentation if given else None

    def incomplete(self) -> str | None:
        """Look which stage is not there and closed now; None if all are."""
        for stage in self.stages:
            files, reason = stage.files.existing(stage.fingerprint)
            if files is None:
                return f"{stage.files.stage}: {reason}"
        return None


@dataclass(frozen=True)
class SubjectPlan:
    """All that is done for one participant, over the sessions."""

    subject: str
    units: tuple[Unit, ...]
    scans: tuple[ScanPlan, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """``sub-X`` or ``sub-X_ses-Y`` of each unit."""
        return tuple(unit.label for unit in self.units)

    @property
    def todo(self) -> bool:
        """Whether anything has to be computed."""
        return any(scan.todo for scan in self.scans)

    @property
    def anatomies(self) -> tuple[AnatomyPlan, ...]:
        """The T1w images that the scans to be processed need, each once."""
        found = {
            scan.anatomy.anatomy.path: scan.anatomy
            for scan in self.scans
            if scan.anatomy and scan.todo
        }
        return tuple(found[path] for path in sorted(found))

    @property
    def needs_atlas(self) -> bool:
        """Whether some lesions are placed by the template's atlas."""
        return any(
            scan.todo and scan.lesions.todo and scan.segmentation is None for scan in self.scans
        )

    def needs_zones(self, image: AnatomyPlan) -> bool:
        """Return whether some lesions are placed by the segmentation of a T1w image."""
        return any(
            scan.todo and scan.lesions.todo and scan.segmentation and scan.anatomy is image
            for scan in self.scans
        )

    def scans_of(self, unit: Unit) -> list[ScanPlan]:
        """Return the plans of a unit's scans."""
        return [plan for plan in self.scans if plan.scan in unit.scans]

    def describe(self) -> Iterable[str]:
        """Write the lines for ``--dry-run``."""
        seen = set()
        for plan in self.scans:
            name = plan.scan.name
            if plan.problem is not None:
                yield f"fail {name} ({plan.problem})"
                continue
            if plan.anatomy and plan.anatomy.anatomy.path not in seen:
                seen.add(plan.anatomy.anatomy.path)
                yield plan.anatomy.stage.describe(plan.anatomy.anatomy.name)
            yield plan.preproc.describe(name)
            yield plan.lesions.describe(name)


def plan_subject(
    units: Sequence[Unit],
    *,
    root: Path,
    method: Method,
    problems: Mapping[str, str] = MappingProxyType({}),
) -> SubjectPlan:
    """Plan the work for one participant.

    Parameters
    ----------
    units
        The units of one participant, one a session.
    root
        The output dataset.
    method
        How scans are processed.
    problems
        Name of a scan that cannot be processed -> why.
    """
    anatomies: dict[Path, AnatomyPlan] = {}
    plans = []
    for unit in units:
        if unit.anatomy is not None and unit.anatomy.path not in anatomies:
            anatomies[unit.anatomy.path] = _plan_anatomy(unit.anatomy, root=root, method=method)
        anatomy = anatomies[unit.anatomy.path] if unit.anatomy else None
        for scan in unit.scans:
            plan = _plan_scan(scan, anatomy, root=root, method=method)
            plans.append(replace(plan, problem=problems.get(scan.name)))
    return SubjectPlan(units[0].subject, tuple(units), tuple(plans))


def _plan_anatomy(anatomy: Anatomy, *, root: Path, method: Method) -> AnatomyPlan:
    names = Names(
        subject=anatomy.entities["sub"],
        session=anatomy.entities.get("ses"),
        src=anatomy.stem,
        suffix="T1w",
        template=method.template.id,
        reference=method.reference.id,
        target="T1w",
        scheme=method.scheme.upper(),
    )
    inputs = {"T1w": _digest(anatomy.path)}
    if anatomy.given is not None:
        inputs |= {f"given {kind}": _digest(f.path) for kind, f in anatomy.given.used.items()}
    wanted = fingerprint("anatomy", inputs=inputs, parameters={})
    return AnatomyPlan(anatomy, _stage(StageFiles(root, "anatomy", names), wanted))


def _plan_scan(scan: Scan, anatomy: AnatomyPlan | None, *, root: Path, method: Method) -> ScanPlan:
    names = plan_names(
        scan,
        template=method.template.id,
        reference=method.reference.id,
        scheme=method.scheme,
        anatomy=anatomy.anatomy if anatomy else None,
    )
    inputs = {f"image {n}": _digest(echo.magnitude) for n, echo in enumerate(scan.echoes)}
    inputs["anatomy"] = anatomy.stage.fingerprint if anatomy else "none"
    if scan.brain_mask is not None:
        inputs["brain mask"] = _digest(scan.brain_mask.path)
    echo_times = [echo.echo_time for echo in scan.echoes]
    wanted = fingerprint(
        "preproc",
        inputs=inputs,
        parameters={"echo_times": echo_times, "metadata": dict(scan.metadata)},
    )
    preproc = _stage(StageFiles(root, "preproc", names), wanted)
    inputs = {"preproc": wanted}
    inputs |= {f"phase {n}": _digest(e.phase) for n, e in enumerate(scan.echoes) if e.phase}
    given = anatomy.anatomy.given if anatomy else None
    if given is not None and given.segmentation is not None:
        inputs["segmentation"] = _digest(given.segmentation.path)
        if given.from_fsnative is not None:
            inputs["segmentation transform"] = _digest(given.from_fsnative.path)
    wanted = fingerprint(
        "lesions",
        inputs=inputs,
        parameters={
            **method.lesion_parameters,
            "phase_units": [echo.phase_units for echo in scan.echoes],
        },
    )
    return ScanPlan(scan, anatomy, preproc, _stage(StageFiles(root, "lesions", names), wanted))


def _stage(files: StageFiles, wanted: str) -> StagePlan:
    reused, reason = files.existing(wanted)
    return StagePlan(files, wanted, reused, reason)


def _digest(path: Path) -> str:
    """Digest of an input; one that cannot be read fails later, where its scan is processed."""
    try:
        return file_digest(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"
