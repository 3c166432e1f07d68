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
from cmbprep.outputs.stages import (
    StageFiles,
    label_values,
    place_and_size,
    read_record,
    sidecar_path,
)

__all__ = ["SaveFiles", "SaveStage"]


class _SaveStageInput(DynamicTraitedSpec, BaseInterfaceInputSpec):
    root = traits.Str(mandatory=True, desc="the output dataset")
    stage = traits.Str(mandatory=True)
    names = traits.Dict(mandatory=True, desc="fields of cmbprep.outputs.stages.Names")
    fingerprint = traits.Str(mandatory=True)
    sources = traits.List(traits.Str(), mandatory=True, desc="BIDS URIs")
    parameters = traits.Dict(mandatory=True)
    scan = traits.Any(desc="cmbprep.bids.model.Scan, for stages of a scan")
    quality = traits.Dict(desc="figures of merit")
    warnings = traits.List(traits.Str())
    figures = traits.List(traits.Str(), desc="SVG files for the report")
    missing_figures = traits.Dict(desc="figure's file name -> why it could not be drawn")
    details = traits.Dict(desc="key -> what its image's sidecar says besides")


class _SaveStageOutput(TraitedSpec):
    sidecar = traits.Str(desc="the file that closes the stage")


class SaveStage(SimpleInterface):
    """Copy the files of a stage to their places, then write its sidecar.

    Parameters
    ----------
    keys
        Keys of the stage's files in the table of outputs; each becomes an input that
        takes a path.
    """

    input_spec = _SaveStageInput
    output_spec = _SaveStageOutput
    _always_run = True

    def __init__(self, keys: tuple[str, ...] = (), **inputs: Any) -> None:
        super().__init__(**inputs)
        self._keys = keys
        add_traits(self.inputs, keys)

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        files = StageFiles(Path(given.root), given.stage, Names(**given.names))
        older = _older_files(files)
        # An older sidecar would vouch for images that are replaced one by one.
        files.sidecar.unlink(missing_ok=True)
        details = given.details if isdefined(given.details) else {}
        written: dict[str, Path] = {}
        for key in self._keys:
            source = getattr(given, key)
            if not isdefined(source):
                if key not in files.optional:
                    raise RuntimeError(f"the stage {given.stage} was given no {key}")
                # One of an earlier run, with other input, would be taken for this one's.
                older.add(files.path(key))
                continue
            written[key] = _place(Path(source), files.path(key))
            sidecar = image_sidecar(files, key, given.sources)
            if sidecar is not None:
                write_json(sidecar_path(files.path(key)), {**sidecar, **details.get(key, {})})
        for path in older - set(written.values()):
            path.unlink(missing_ok=True)
            sidecar_path(path).unlink(missing_ok=True)
        figures = given.figures if isdefined(given.figures) else []
        missing = given.missing_figures if isdefined(given.missing_figures) else {}
        _place_figures(files, [Path(figure) for figure in figures], missing)
        scan = given.scan if isdefined(given.scan) else None
        assert scan is None or isinstance(scan, Scan)
        write_json(
            files.sidecar,
            closing_sidecar(
                files,
                fingerprint=given.fingerprint,
                sources=given.sources,
                parameters=given.parameters,
                quality=given.quality if isdefined(given.quality) else {},
                warnings=given.warnings if isdefined(given.warnings) else [],
                scan=scan,
                optional=[key for key in files.optional if key in written],
                content={**_content(files, written), "MissingFigures": missing},
            ),
        )
        self._results["sidecar"] = str(files.sidecar)
        return runtime


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
        content["Lesions"] = {
            str(lesion.index): place_and_size(lesion) for lesion in read_lesions(written["table"])
        }
    return content


class _SaveFilesInput(DynamicTraitedSpec, BaseInterfaceInputSpec):
    places = traits.Dict(mandatory=True, desc="name of an input -> where its file goes")
    sidecar = traits.Str(mandatory=True, desc="JSON file, written last")
    metadata = traits.Dict(mandatory=True)


class _SaveFilesOutput(TraitedSpec):
    sidecar = traits.Str()


class SaveFiles(SimpleInterface):
    """Copy files to given places, then write a sidecar that vouches for them."""

    input_spec = _SaveFilesInput
    output_spec = _SaveFilesOutput
    _always_run = True

    def __init__(self, places: dict[str, str] | None = None, **inputs: Any) -> None:
        super().__init__(places=places or {}, **inputs)
        add_traits(self.inputs, list(places or {}))

    def _run_interface(self, runtime: Any) -> Any:
        sidecar = Path(self.inputs.sidecar)
        sidecar.unlink(missing_ok=True)
        for name, place in self.inputs.places.items():
            with write_atomically(Path(place)) as temporary:
                shutil.copyfile(getattr(self.inputs, name), temporary)
        self._results["sidecar"] = str(write_json(sidecar, self.inputs.metadata))
        return runtime
