"""The sink: put a stage's files in place, its sidecar last."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    DynamicTraitedSpec,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.io import add_traits

from cmbprep.bids.model import Scan
from cmbprep.errors import CmbprepError
from cmbprep.lesions import read_lesions
from cmbprep.outputs.files import file_digest, write_atomically, write_json
from cmbprep.outputs.names import Names
from cmbprep.outputs.sidecars import closing_sidecar, image_sidecar
from cmbprep.outputs.sparse import describe_mask
from cmbprep.outputs.stages import (
    StageFiles,
    label_values,
    place_and_size,
    read_record,
    sidecar_path,
)


class _SaveStageInput(DynamicTraitedSpec, BaseInterfaceInputSpec):
    root = traits.Str(mandatory=True, desc="the output dataset")
    stage = traits.Str(mandatory=True)
    names = traits.Dict(mandatory=True, desc="fields of cmbprep.outputs.stages.Names")
    fingerprint = traits.Str(mandatory=True)
    sources = traits.List(traits.Str(), mandatory=True, desc="BIDS URIs")
    parameters = traits.Dict(mandatory=True)
    scan = traits.Any(desc="cmbprep.bids.model.Scan, for stages of a scan")
    figures = traits.List(traits.Str(), desc="SVG files for the report")
    missing_figures = traits.Dict(desc="figure's file name -> why it could not be drawn")
    details = traits.Dict(desc="key -> what its image's sidecar says besides")
    view = traits.Dict(desc="what the scan shows of the brain, from PlaceLesions")


class _SaveStageOutput(TraitedSpec):
    sidecar = traits.Str(desc="the file that closes the stage")


class SaveStage(SimpleInterface):
    """Copy the files of a stage to their places, then write its sidecar.

    Parameters
    ----------
    keys
        Keys of the stage's files in the table of outputs; each becomes an input that
        takes a path.
    qualities, warnings
        How many nodes of the stage return figures of merit, and warnings. Each becomes an input,
        ``quality1``, ``quality2``, ..., ``warnings1``, ...; they are joined in this order.
    """

    input_spec = _SaveStageInput
    output_spec = _SaveStageOutput
    _always_run = True

    def __init__(
        self, keys: tuple[str, ...] = (), *, qualities: int = 0, warnings: int = 0, **inputs: Any
    ) -> None:
        super().__init__(**inputs)
        self._keys = keys
        self._qualities = [f"quality{n}" for n in range(1, qualities + 1)]
        self._warnings = [f"warnings{n}" for n in range(1, warnings + 1)]
        add_traits(self.inputs, [*keys, *self._qualities, *self._warnings])

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        files = StageFiles(Path(given.root), given.stage, Names(**given.names))
        older = _older_files(files)
        # An older sidecar would vouch for images that are replaced one by one.
        files.sidecar.unlink(missing_ok=True)
        written = self._place_files(files)
        # One of an earlier run, with other input, would be taken for this one's.
        older |= {files.path(key) for key in self._keys if key not in written}
        for path in older - set(written.values()):
            path.unlink(missing_ok=True)
            sidecar_path(path).unlink(missing_ok=True)
        missing = self._given("missing_figures", {})
        _place_figures(files, [Path(figure) for figure in self._given("figures", [])], missing)
        scan = self._given("scan", None)
        assert scan is None or isinstance(scan, Scan)
        quality: dict[str, Any] = {}
        for name in self._qualities:
            quality |= self._given(name, {})
        write_json(
            files.sidecar,
            closing_sidecar(
                files,
                fingerprint=given.fingerprint,
                sources=given.sources,
                parameters=given.parameters,
                quality=quality,
                warnings=[text for name in self._warnings for text in self._given(name, [])],
                scan=scan,
                optional=[key for key in files.optional if key in written],
                content={
                    **_content(files, written),
                    **self._given("view", {}),
                    "MissingFigures": missing,
                },
            ),
        )
        self._results["sidecar"] = str(files.sidecar)
        return runtime

    def _given(self, name: str, default: Any) -> Any:
        value = getattr(self.inputs, name)
        return value if isdefined(value) else default

    def _place_files(self, files: StageFiles) -> dict[str, Path]:
        """Copy what is given to its place, and write its sidecar if it has one of its own."""
        details = self._given("details", {})
        written: dict[str, Path] = {}
        for key in self._keys:
            source = self._given(key, None)
            if source is None:
                if key not in files.optional:
                    raise RuntimeError(f"the stage {files.stage} was given no {key}")
                continue
            written[key] = _place(Path(source), files.path(key))
            sidecar = image_sidecar(files, key, self.inputs.sources)
            if sidecar is not None:
                write_json(sidecar_path(files.path(key)), {**sidecar, **details.get(key, {})})
        return written


def _place(source: Path, target: Path) -> Path:
    """Copy a file to its place in the output dataset."""
    with write_atomically(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _older_files(files: StageFiles) -> set[Path]:
    """Find the files that an earlier run with another template, scheme or T1w image has left."""
    try:
        record = read_record(files.root, files.sidecar) if files.sidecar.exists() else None
    except CmbprepError:
        return set()
    return set(record.paths.values()) if record is not None else set()


def _place_figures(files: StageFiles, figures: list[Path], missing: Iterable[str]) -> None:
    """Copy the figures of a stage, and remove older ones of what is no longer found or drawn."""
    folder = files.root / f"sub-{files.names.subject}" / "figures"
    placed = {_place(figure, folder / figure.name) for figure in figures}
    for name in missing:
        (folder / name).unlink(missing_ok=True)
    if files.stage == "lesions":
        pattern = f"{files.names.src}_desc-lesion[0-9]*_{files.names.suffix}.svg"
        for path in set(folder.glob(pattern)) - placed:
            path.unlink(missing_ok=True)


def _content(files: StageFiles, written: dict[str, Path]) -> dict[str, Any]:
    """Describe what was written, so that a later run can tell whether it is still whole."""
    sizes = {key: path.stat().st_size for key, path in written.items()}
    for key, path in written.items():
        if image_sidecar(files, key, ()) is not None:
            sizes[f"{key}.json"] = sidecar_path(path).stat().st_size
    content: dict[str, Any] = {"Files": sizes}
    if files.stage == "lesions":
        content["Labels"] = label_values(written["dseg"])
        content["LabelImage"] = file_digest(written["dseg"])
        content["Table"] = file_digest(written["table"])
        content["TemplateMask"] = describe_mask(written["template_mask"])
        content["Lesions"] = {
            str(lesion.index): place_and_size(lesion) for lesion in read_lesions(written["table"])
        }
    return content
