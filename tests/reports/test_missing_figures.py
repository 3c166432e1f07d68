"""The report says which figure is missing and why, and never takes in a damaged one."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from cmbprep.group import page as group_page
from cmbprep.group import page_maps
from cmbprep.group.run import run_group
from cmbprep.group.standard_space import glass_brain
from cmbprep.outputs.files import read_json, write_json
from cmbprep.outputs.names import Names
from cmbprep.outputs.stages import StageFiles
from cmbprep.reports import page
from cmbprep.reports.figures.canvas import NAMESPACE, Canvas, check_figure
from cmbprep.reports.individual import write_subject_report
from cmbprep.reports.page import embed_figure
from tests.reports.outputtree import Tree, block, make_lesion, make_names
from tests.reports.test_individual import Page, draw

FIGURE = f'<svg xmlns="{NAMESPACE}" viewBox="0 0 1 1">{{}}</svg>\n'
KINDS = ("mask", "registration", "bias", "zones", "overview", "lesion001", "lesion002")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """One scan with two lesions and all of its figures."""
    return make_tree(tmp_path / "out")


def make_tree(root: Path) -> Tree:
    tree = Tree(root)
    tree.add("sub-1_T2starw", [make_lesion(1), make_lesion(2)])
    for kind in KINDS:
        draw(tree, figure_name(kind))
    return tree


def figure_name(kind: str) -> str:
    return f"sub-1_desc-{kind}_T2starw.svg"


def figure_path(tree: Tree, kind: str) -> Path:
    return tree.root / "sub-1" / "figures" / figure_name(kind)


def report(tree: Tree) -> Page:
    return Page(write_subject_report(tree.finish(), "1").read_text())


def say_missing(stage: StageFiles, missing: dict[str, str]) -> None:
    content = read_json(stage.sidecar)
    content["Cmbprep"]["MissingFigures"] = missing
    write_json(stage.sidecar, content)


def test_nothing_is_missing_of_a_whole_scan(tree: Tree) -> None:
    text = report(tree).text
    assert "Missing figures" not in text
    assert "No figure:" not in text


def test_a_figure_that_could_not_be_drawn_is_named_with_the_reason(tree: Tree) -> None:
    names = make_names("sub-1", "T2starw")
    say_missing(StageFiles(tree.root, "preproc", names), {figure_name("bias"): "no <memory>"})
    say_missing(
        StageFiles(tree.root, "lesions", names), {figure_name("lesion002"): "it is too large."}
    )
    figure_path(tree, "lesion002").unlink()
    text = report(tree).text
    # The file of the bias is one of an earlier run.
    assert f"No figure: the figure {figure_name('bias')} is missing: no <memory>." in text
    assert f"the figure {figure_name('lesion002')} is missing: it is too large." in text
    flag = "Missing figures (the results do not depend on them): Bias correction, lesion 2"
    assert text.count(flag) == 1
    assert text.count("No figure:") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_that_was_deleted_is_named(tree: Tree, kind: str) -> None:
    figure_path(tree, kind).unlink()
    text = report(tree).text
    assert f"No figure: the figure {figure_name(kind)} is not in the dataset." in text
    assert text.count("No figure:") == 1
    assert text.count("Missing figures") == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe<svg",
        FIGURE.format("<g/>").encode()[:-12],
        FIGURE.format("<title>caf\xe9</title>").encode("latin-1"),
        b"<html>\n<svg></svg>",
        b"\0" * 100,
    ],
)
@pytest.mark.parametrize("kind", ["mask", "overview", "lesion001"])
def test_a_damaged_figure_is_named_and_left_out(tree: Tree, kind: str, content: bytes) -> None:
    figure_path(tree, kind).write_bytes(content)
    text = report(tree).text
    assert f"No figure: the figure {figure_name(kind)} is damaged." in text
    for other in set(KINDS) - {kind}:
        assert figure_name(other) in text


def test_many_lesions_are_counted_not_listed(tree: Tree) -> None:
    tree.add("sub-2_T2starw", [make_lesion(n, x_mni=0.0) for n in range(1, 31)])
    text = Page(write_subject_report(tree.finish(), "2").read_text()).text
    assert "Zones on the scan, Bias correction, 30 lesions" in text
    assert text.count("is not in the dataset") == 35


def test_a_scan_without_lesions_has_no_overview_to_miss(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "out")
    tree.add("sub-1_T2starw", [])
    for kind in KINDS[:4]:
        draw(tree, figure_name(kind))
    assert "No figure:" not in report(tree).text


def test_figures_of_a_stage_that_is_not_there_are_not_missed(tree: Tree) -> None:
    tree.fail("sub-1_ses-b_T2starw", "the registration failed")
    assert "No figure:" not in report(tree).text


@pytest.mark.parametrize("given", [False, True])
def test_figures_of_a_t1w_image(tree: Tree, given: bool) -> None:
    names = Names(**{**vars(make_names("sub-1", "T1w")), "target": "T1w"})
    files = StageFiles(tree.root, "anatomy", names)
    parameters = {"bias_correction": "given"} if given else {}
    write_json(files.sidecar, block(files, "sub-1_T1w", {}, (), parameters))
    draw(tree, "sub-1_desc-mask_T1w.svg")
    say_missing(files, {"sub-1_desc-template_T1w.svg": "there was not enough memory to draw it"})
    text = report(tree).text
    assert "is missing: there was not enough memory to draw it." in text
    # Where another program has corrected the image, there is no field to be shown.
    assert ("sub-1_desc-bias_T1w.svg is not in the dataset" in text) is not given
    assert text.count("Missing figures") == 1


@pytest.mark.parametrize(
    "inner",
    [
        "<script>alert(1)</script>",
        "<SCRIPT>alert(1)</SCRIPT>",
        "<foreignObject><p/></foreignObject>",
        '<g onload="x()"/>',
        '<g ONLOAD="x()"/>',
        '<image href="https://example.org/x.png"/>',
        '<image xmlns:x="http://www.w3.org/1999/xlink" x:href="https://example.org/x.png"/>',
        '<use href="other.svg#a"/>',
        '<image href="data:image/svg+xml;base64,AAAA"/>',
        '<image href="javascript:x()"/>',
        '<a href="#x"/>',
        '<rect style="fill:url(https://example.org)"/>',
        "<style>@import 'x.css'</style>",
        "<style>g{background:u\\72l(x)}</style>",
        "<style>g{background:URL (x)}</style>",
        '<desc><style><g class="&lt;/style&gt;"/></style></desc>',
        "<title><g/></title>",
        "<!-- > -->",
        "<![CDATA[<script>]]>",
        "<?php x ?>",
        '<p xmlns="http://www.w3.org/1999/xhtml"/>',
        "<g>",
        "&nbsp;",
        "</svg><svg>",
    ],
)
def test_what_a_figure_of_ours_never_holds_is_refused(inner: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"figure|well-formed|style sheet"):
        check_figure(FIGURE.format(inner))
    (tmp_path / "x.svg").write_text(FIGURE.format(inner))
    assert embed_figure(tmp_path / "x.svg") == (None, "the figure x.svg is damaged")


def test_a_figure_of_ours_is_taken_as_it_is(tmp_path: Path) -> None:
    canvas = Canvas(20, 20, "a < b", "c & d", style=".cmb-over{opacity:0}")
    canvas.picture(("data:image/png;base64,AAAA", (1, 1)), (0, 0, 5, 5), pixelated=True)
    canvas.open_group("cmb-over")
    canvas.path("M0 0h5", "#ffffff")
    canvas.circle((1, 1), 1, hint="é")
    canvas.text((0, 0), '<script> & "url(x)"')
    canvas.close_group()
    path = tmp_path / "x.svg"
    path.write_text(canvas.render(), encoding="utf-8")
    assert embed_figure(path) == (canvas.render(), "")


def test_nothing_but_a_file_of_fitting_size_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.svg").mkdir()
    assert embed_figure(tmp_path / "folder.svg")[0] is None
    (tmp_path / "link.svg").symlink_to(tmp_path / "nothing.svg")
    assert embed_figure(tmp_path / "link.svg")[0] is None
    path = tmp_path / "large.svg"
    path.write_text(FIGURE.format("<g/>"))
    assert embed_figure(path)[0] is not None
    monkeypatch.setattr(page, "MAX_FIGURE", 10)
    assert embed_figure(path) == (None, "the figure large.svg is damaged")


def out_of_memory(*_: object, **__: object) -> str:
    raise MemoryError


def write_group_page(root: Path) -> str:
    """Write the page with an empty picture for the glass brain, which takes long to draw."""
    with pytest.MonkeyPatch.context() as patch:
        if page_maps.glass_brain is glass_brain:
            patch.setattr(page_maps, "glass_brain", lambda _: '<img alt="">')
        return run_group(root, participants_tsv=None).page.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the group level with every figure."""
    return write_group_page(make_tree(tmp_path_factory.mktemp("whole") / "out").finish())


@pytest.mark.parametrize(
    ("place", "failing", "reasons", "lost"),
    [
        # Slices of definite microbleeds, and of all.
        (page_maps, "frequency_figure", 2, 2),
        (page_maps, "glass_brain", 1, 1),
        (page_maps, "_interactive", 1, 0),
        # In the place of the plot of counts, and of those of quality figures.
        (group_page, "_strips", 2, 0),
    ],
)
def test_the_group_page_stays_when_a_figure_fails(
    tree: Tree,
    whole: str,
    monkeypatch: pytest.MonkeyPatch,
    place: ModuleType,
    failing: str,
    reasons: int,
    lost: int,
) -> None:
    assert "No figure:" not in Page(whole).text
    monkeypatch.setattr(place, failing, out_of_memory)
    text = write_group_page(tree.finish())
    said = Page(text).text.count("No figure: there was not enough memory to draw it.")
    assert said == reasons
    drawn, all_drawn = (len(re.findall('class="frame"', page)) for page in (text, whole))
    assert all_drawn - drawn == lost
    assert (tree.root / "group_cmb.tsv").exists()


def test_a_page_that_cannot_be_made_costs_no_table(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree.finish()
    monkeypatch.setattr(group_page, "render_page", out_of_memory)
    with pytest.raises(MemoryError):
        run_group(root, participants_tsv=None)
    assert (root / "group_cmb.tsv").exists() and (root / "group_lesions.json").exists()


def test_a_map_is_shown_without_a_template_that_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cmbprep import templates
    from cmbprep.group.figures import frequency_figure
    from cmbprep.group.standard_space import template_background

    path = tmp_path / "t1w.nii.gz"
    nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)).to_filename(path)
    path.write_bytes(path.read_bytes()[:-40])
    template = templates.load_template()
    monkeypatch.setattr(
        templates,
        "load_template",
        lambda *_, **__: type(template)(**{**vars(template), "t1w": path}),
    )
    data = np.zeros((9, 9, 9), np.float32)
    data[4, 4, 4] = 0.5
    background = template_background(template.id, data.shape, np.eye(4))
    assert background is None
    check_figure(frequency_figure(data, np.eye(4), background))
