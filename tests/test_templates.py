"""Templates: the packaged one, and others from a TemplateFlow folder that the tests build."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from cmbprep.errors import ResourceError
from cmbprep.templates import PACKAGED_ID, Template, load_template

OTHER = "MNI152NLin6Asym"


def put(home: Path, name: str, content: bytes = b"image") -> Path:
    path = home / f"tpl-{OTHER}" / f"tpl-{OTHER}_{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    return tmp_path


def test_packaged_template_needs_neither_client_nor_heavy_imports() -> None:
    code = (
        "import sys; from cmbprep.templates import load_template; load_template(offline=True);"
        "print(sorted(m for m in ('templateflow', 'bids', 'ants', 'nibabel') if m in sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"TEMPLATEFLOW_HOME": "/nonexistent", "PYTHONPATH": ":".join(sys.path)},
    )
    assert run.stdout.strip() == "[]"


def test_packaged_images_share_one_grid() -> None:
    template = load_template()
    head, mask = (
        nib.Nifti1Image.from_filename(template.t1w),
        nib.Nifti1Image.from_filename(template.brain_mask),
    )
    for scheme in ("mars", "MARS", "bombs"):
        atlas = template.atlas(scheme)
        assert atlas is not None
        image = nib.Nifti1Image.from_filename(atlas)
        assert image.shape == head.shape == mask.shape
        np.testing.assert_array_equal(image.affine, head.affine)
    np.testing.assert_allclose(nib.affines.voxel_sizes(head.affine), 1)
    # The grid of TemplateFlow's res-01 of this template.
    np.testing.assert_allclose(head.affine[:3, 3], (-96, -132, -78))
    for image in (head, mask):
        assert image.header["qform_code"] == image.header["sform_code"] == 4


def test_packaged_brain_lies_in_the_head() -> None:
    template = load_template()
    head = np.asarray(nib.Nifti1Image.from_filename(template.t1w).dataobj)
    mask = np.asarray(nib.Nifti1Image.from_filename(template.brain_mask).dataobj) > 0
    litres = mask.sum() / 1e6
    assert 1.7 < litres < 2.0
    shell = head[~mask & (head > 0)]
    assert np.median(head[mask]) > 2 * np.median(shell)
    assert (head[~mask] > 100).any(), "the skull and scalp must not be stripped"


def test_packaged_files_are_compact() -> None:
    template = load_template()
    folders = {template.t1w.parent, template.t1w.parents[1] / "atlas"}
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert size < 4e6


def test_other_template_is_found_at_home_without_the_client(home: Path) -> None:
    t1w = put(home, "res-01_T1w.nii.gz")
    mask = put(home, "res-01_desc-brain_mask.nii.gz")
    put(home, "res-01_desc-brain_T1w.nii.gz")
    template = load_template(OTHER, offline=True)
    assert (template.id, template.t1w, template.brain_mask) == (OTHER, t1w, mask)
    assert template.atlas("mars") is None, "zones come from the packaged space alone"


def test_coarser_resolution_serves_if_the_finer_is_a_placeholder(home: Path) -> None:
    put(home, "res-01_T1w.nii.gz", b"")
    put(home, "res-01_desc-brain_mask.nii.gz", b"")
    t1w = put(home, "res-02_T1w.nii.gz")
    put(home, "res-02_desc-brain_mask.nii.gz")
    template = load_template(OTHER, offline=True)
    assert template.t1w == t1w


@pytest.mark.parametrize("mask", [None, b""])
def test_offline_says_which_template_and_what_to_do(home: Path, mask: bytes | None) -> None:
    put(home, "res-01_T1w.nii.gz")
    if mask is not None:
        put(home, "res-01_desc-brain_mask.nii.gz", mask)
    with pytest.raises(ResourceError, match=OTHER) as caught:
        load_template(OTHER, offline=True)
    assert "--offline" in str(caught.value) and "TEMPLATEFLOW_HOME" in str(caught.value)
    assert PACKAGED_ID in str(caught.value)
    assert caught.value.exit_status == 2


class FakeClient:
    """Stands for TemplateFlow's client; writes what it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def get(self, _template: str, **query: object) -> None:
        assert query["resolution"] == 1
        name = {"T1w": "res-01_T1w.nii.gz", "mask": "res-01_desc-brain_mask.nii.gz"}
        put(self.root, name[str(query["suffix"])])


def use_client(monkeypatch: pytest.MonkeyPatch, client: type) -> None:
    module = ModuleType("templateflow.client")
    module.TemplateFlowClient = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "templateflow", ModuleType("templateflow"))
    monkeypatch.setitem(sys.modules, "templateflow.client", module)


def test_absent_template_is_fetched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch, FakeClient)
    put(home, "res-01_T1w.nii.gz", b"")
    assert load_template(OTHER).t1w.read_bytes() == b"image"


def test_offline_never_makes_a_client(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden:
        def __init__(self, **_root: Path) -> None:
            raise AssertionError("offline, and yet a client was made")

    use_client(monkeypatch, Forbidden)
    with pytest.raises(ResourceError):
        load_template(OTHER, offline=True)


def test_failed_fetch_is_a_resource_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeClient):
        def get(self, _template: str, **_query: object) -> None:
            raise OSError("no route to host")

    use_client(monkeypatch, Broken)
    with pytest.raises(ResourceError, match="no route to host") as caught:
        load_template(OTHER)
    assert OTHER in str(caught.value)


def test_template_unknown_to_templateflow(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty(FakeClient):
        def get(self, _template: str, **_query: object) -> None:
            return None

    use_client(monkeypatch, Empty)
    with pytest.raises(ResourceError, match="NoSuchTemplate"):
        load_template("NoSuchTemplate")


def test_real_client_serves_a_local_home(home: Path) -> None:
    """The queries that we make are ones that the real client answers from what is there."""
    pytest.importorskip("templateflow")
    t1w = put(home, "res-01_T1w.nii.gz")
    mask = put(home, "res-01_desc-brain_mask.nii.gz")
    code = (
        "from templateflow.client import TemplateFlowClient as C; import os;"
        "c = C(root=os.environ['TEMPLATEFLOW_HOME']);"
        f"q = dict(resolution=1, extension='.nii.gz');"
        f"print(c.get({OTHER!r}, suffix='T1w', desc=None, **q));"
        f"print(c.get({OTHER!r}, suffix='mask', desc='brain', **q))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            "TEMPLATEFLOW_HOME": str(home),
            "TEMPLATEFLOW_AUTOUPDATE": "off",
            "PYTHONPATH": ":".join(sys.path),
        },
    )
    assert run.stdout.split() == [str(t1w), str(mask)]


@pytest.mark.parametrize("bad", ["", "../etc", "MNI 152", "a/b"])
def test_identifier_cannot_leave_the_folder(bad: str) -> None:
    with pytest.raises(ResourceError, match="identifier"):
        load_template(bad, offline=True)


def test_template_checks_its_files_and_survives_a_pickle(tmp_path: Path) -> None:
    template = load_template()
    copy = pickle.loads(pickle.dumps(template))
    assert copy == template
    with pytest.raises(ResourceError, match="missing or empty"):
        Template(id="X", t1w=tmp_path / "none.nii.gz", brain_mask=template.brain_mask)
