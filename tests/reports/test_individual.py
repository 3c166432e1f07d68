"""The report of a participant says what is in the output dataset, and nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cmbprep.reports.individual import write_subject_report
from cmbprep.reports.results import collect_results
from cmbprep.reports.text import load_bibliography, load_spec
from tests.reports.outputtree import Tree, make_lesion

VOID = {"meta", "br", "img", "input", "link", "hr"}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><title>{}</title></svg>\n'


class Page(HTMLParser):
    """Checks that tags nest, and gathers text, addresses and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "a":
            self.links.append(values["href"] or "")
        for name in ("src", "srcset", "data", "xlink:href"):
            if values.get(name):
                self.loads.append(values[name] or "")
        if tag in {"link", "image", "use", "script"} and values.get("href"):
            self.loads.append(values["href"] or "")
        if "id" in values:
            self.ids.append(values["id"] or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "out")


def draw(tree: Tree, name: str) -> None:
    folder = tree.root / f"{name.partition('_')[0]}" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(SVG.format(name))


def full_tree(tree: Tree) -> Path:
    lesions = [
        make_lesion(1),
        make_lesion(2, zone="deep", region="thalamus", rating="possible", boundary=True),
        make_lesion(3, susceptibility="diamagnetic", zone="deep", region="basal ganglia"),
    ]
    tree.add("sub-1_ses-a_run-1_T2starw", lesions, warnings=["strange & <odd>"])
    tree.add("sub-1_ses-a_run-2_T2starw")
    tree.fail("sub-1_ses-b_swi", "it broke <here>", "Traceback <module>\n  line 1")
    tree.refuse("1", "sub-1_mip.nii.gz", "a projection")
    for number in (1, 2, 3):
        draw(tree, f"sub-1_ses-a_run-1_desc-lesion00{number}_T2starw.svg")
    for what in ("mask", "registration", "bias", "zones", "overview"):
        draw(tree, f"sub-1_ses-a_run-1_desc-{what}_T2starw.svg")
    return tree.finish()


def test_report_has_every_scan_lesion_and_figure(tree: Tree) -> None:
    root = full_tree(tree)
    path = write_subject_report(root, "1")
    assert path == root / "sub-1.html"
    page = Page(path.read_text())
    for name in ("run-1_T2starw", "run-2_T2starw", "ses-b_swi"):
        assert name in page.text
    for index in (1, 2, 3):
        assert f"scan-1-lesion-{index}" in page.ids
        assert f"#scan-1-lesion-{index}" in page.links
        assert f"desc-lesion00{index}_T2starw.svg" in page.text
    for what in ("mask", "registration", "bias", "zones", "overview"):
        assert f"sub-1_ses-a_run-1_desc-{what}_T2starw.svg" in page.text
    assert len(page.ids) == len(set(page.ids))
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inner) <= set(page.ids)


def test_no_page_rounds_a_probability_to_certainty(tree: Tree) -> None:
    """The table is still sorted by the exact value."""
    tree.add("sub-1_T2starw", [make_lesion(1, probability=0.997), make_lesion(2, probability=0.3)])
    page = write_subject_report(tree.finish(), "1").read_text()
    assert 'data-key="0.997">&gt;0.99</td>' in page and 'data-key="0.3">0.30</td>' in page


def test_report_is_self_contained_and_tells_no_place(tree: Tree) -> None:
    root = full_tree(tree)
    text = write_subject_report(root, "1").read_text()
    page = Page(text)
    assert [load for load in page.loads if not load.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\(", text)
    assert str(root) not in text
    assert str(Path.cwd()) not in text
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text), "no dates"
    files = [link for link in page.links if not link.startswith(("#", "https://doi.org/"))]
    assert files
    for link in files:
        assert (root / link).exists(), link


def test_same_outputs_give_the_same_bytes_anywhere(tree: Tree, tmp_path: Path) -> None:
    first = write_subject_report(full_tree(tree), "1").read_bytes()
    assert write_subject_report(tree.root, "1").read_bytes() == first
    other = Tree(tmp_path / "elsewhere" / "out")
    assert write_subject_report(full_tree(other), "1").read_bytes() == first


def test_text_from_outside_is_escaped(tree: Tree) -> None:
    text = write_subject_report(full_tree(tree), "1").read_text()
    assert "it broke &lt;here&gt;" in text
    assert "Strange &amp; &lt;odd&gt;" in text
    assert "Traceback &lt;module&gt;" in text
    assert "<here>" not in text


def test_failed_scan_is_no_zero_and_shows_its_traceback(tree: Tree) -> None:
    page = Page(write_subject_report(full_tree(tree), "1").read_text())
    assert "No result: it broke <here>" in page.text
    assert "This is not a count of zero" in page.text
    assert "errors" in page.ids
    assert "a projection" in page.text


def test_an_error_outdates_an_older_result(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)])
    tree.fail("sub-1_T2starw", "the second run broke")
    root = tree.finish()
    (result,) = collect_results(root, subject="1")
    assert result.scans[0].status == "failed"
    assert "the second run broke" in Page(write_subject_report(root, "1").read_text()).text


def test_unreadable_table_is_a_failure(tree: Tree) -> None:
    files = tree.add("sub-1_T2starw", [make_lesion(1)])
    files.path("table").write_text("index\tname\nx\ty\n")
    (result,) = collect_results(tree.finish(), subject="1")
    assert result.scans[0].status == "failed"
    assert "dseg.tsv" in (result.scans[0].reason or "")


def test_scan_that_was_never_finished_is_incomplete(tree: Tree) -> None:
    files = tree.add("sub-1_T2starw")
    files.sidecar.unlink()
    (result,) = collect_results(tree.finish(), subject="1")
    assert result.scans[0].status == "incomplete"
    page = Page(write_subject_report(tree.root, "1").read_text())
    assert "This is not a count of zero" in page.text


def test_participant_without_any_scan_has_a_report(tree: Tree) -> None:
    tree.refuse("1", "sub-1_T2starw.nii.gz", "it is empty")
    page = Page(write_subject_report(tree.finish(), "1").read_text())
    assert "No blood-sensitive scan" in page.text
    assert "it is empty" in page.text


def test_subject_labels_that_begin_alike_are_kept_apart(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    tree.add("sub-11_T2starw", [make_lesion(1)])
    tree.fail("sub-12_ses-1_T2starw", "no")
    (result,) = collect_results(tree.finish(), subject="1")
    assert [scan.name for scan in result.scans] == ["sub-1_T2starw"]
    assert "sub-11" not in write_subject_report(tree.root, "1").read_text()


def test_scans_told_apart_keep_their_source_names(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)], src="sub-1_acq-T2starw")
    tree.add("sub-1_swi", src="sub-1_acq-swi")
    (result,) = collect_results(tree.finish(), subject="1")
    assert [(scan.name, scan.status, len(scan.lesions)) for scan in result.scans] == [
        ("sub-1_T2starw", "complete", 1),
        ("sub-1_swi", "complete", 0),
    ]


def test_broken_and_foreign_figures_are_left_out(tree: Tree) -> None:
    tree.add("sub-1_T2starw", [make_lesion(1)])
    root = tree.finish()
    for what, content in (
        ("mask", "<svg><script>alert(1)</script></svg>"),
        ("zones", '<svg><image href="https://example.org/x.png"/></svg>'),
        ("bias", "<svg><g>"),
        ("lesion001", '<svg onload="x()"></svg>'),
    ):
        draw(tree, f"sub-1_desc-{what}_T2starw.svg")
        (root / "sub-1" / "figures" / f"sub-1_desc-{what}_T2starw.svg").write_text(content)
    text = write_subject_report(root, "1").read_text()
    page = Page(text)
    assert "alert(1)" not in text
    assert "example.org" not in text
    assert "onload" not in text
    for what in ("mask", "zones", "bias", "lesion001"):
        assert f"the figure sub-1_desc-{what}_T2starw.svg is damaged" in page.text


def test_methods_follow_what_ran(tree: Tree) -> None:
    tree.add("sub-1_T2starw")
    page = Page(write_subject_report(tree.finish(), "1").read_text())
    assert "cmbprep 1.2.3" in page.text
    assert "N4" in page.text
    assert "Microbleed Anatomical Rating Scale" in page.text
    assert "Brain Observer" not in page.text
    assert "no T1-weighted image" in page.text
    assert "rigid transform" not in page.text
    assert "tolerance" not in page.text
    marks = {int(n) for group in re.findall(r"\[([\d, ]+)\]", page.text) for n in group.split(",")}
    references = page.text.count("doi:")
    assert marks == set(range(1, references + 1)), "every reference is cited, every mark has one"


def test_methods_name_a_network_and_what_it_saw(tree: Tree) -> None:
    network = {
        "kind": "network",
        "model": "net.onnx",
        "model_sha256": "0123456789abcdef" * 4,
        "channels": "magnitude, brain_mask",
        "orientation": "LPS",
        "normalisation": "percentile-brain(1,99)",
        "connectivity": 18,
        "threshold": 0.4,
        "definite": 0.8,
    }
    own = {**network, "spacing_mm": "native"}
    coarse = {**network, "spacing_mm": [1.0, 1.0, 2.5]}
    for name, values in (("sub-1_T2starw", own), ("sub-2_T2starw", coarse)):
        tree.add(name, parameters={"detector": "net.onnx", "detector_parameters": values})
    root = tree.finish()
    one, other = (Page(write_subject_report(root, subject).read_text()).text for subject in "12")
    for text in (one, other):
        assert "the ONNX model net.onnx (its SHA-256 begins with 0123456789abcdef)" in text
        assert "magnitude, brain_mask" in text and "percentile-brain(1,99)" in text
        assert "LPS" in text and "18 neighbours" in text
        assert "classical detector" not in text
    assert "at its own voxel size" in one and "resampled" not in one
    assert "voxels of 1 × 1 × 2.5 mm" in other and "own voxel size" not in other


def test_methods_speak_of_phase_only_where_it_was_used(tree: Tree) -> None:
    files = tree.add("sub-1_T2starw")
    root = tree.finish()
    content = json.loads(files.sidecar.read_text())
    for quality, used, unknown in (
        ({}, False, False),
        ({"phase_used": False}, False, False),
        ({"phase_used": True, "phase_sign": 1}, True, False),
        ({"phase_used": True, "phase_sign": None}, True, True),
    ):
        content["Cmbprep"]["Quality"] = quality
        files.sidecar.write_text(json.dumps(content))
        text = Page(write_subject_report(root, "1").read_text()).text
        assert ("V-SHARP" in text) == used
        assert ("could not be inferred" in text) == unknown


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([0.02], None),
        ([0.00942, 0.02], "2 echoes, the one of 20 ms was registered"),
        ([0.004, 0.009], "2 echoes, the one of 9 ms was registered"),
        (
            [0.005, 0.015, 0.0251],
            "those of 15 ms and later (15 and 25.1 ms, 2 of 3 echoes) were combined",
        ),
        ([0.005, None], "The scan's 2 echoes were combined into one image"),
    ],
    ids=["one", "late", "early", "several", "unknown"],
)
def test_methods_say_how_echoes_were_combined(
    tree: Tree, times: list[float | None], said: str | None
) -> None:
    files = tree.add("sub-1_MEGRE")
    root = tree.finish()
    preproc = next(files.sidecar.parent.glob("*desc-preproc*.json"))
    for sidecar in (preproc, files.sidecar):
        content = json.loads(sidecar.read_text())
        content["Cmbprep"]["EchoTimes"] = times
        content["Cmbprep"]["Quality"] = {"phase_used": True, "phase_sign": 1}
        sidecar.write_text(json.dumps(content))
    text = Page(write_subject_report(root, "1").read_text()).text
    assert ("(magnitude × echo time)²" in text) == (len(times) > 1)
    if said is None:
        assert "combined" not in text and "echoes" not in text
    else:
        assert said in text
        assert text.count("echoes, the one of") + text.count("were combined") == 1


def test_specification_names_what_exists() -> None:
    from cmbprep.lesions import COLUMNS

    spec = load_spec()
    cited = {key for entry in spec["methods"] for key in entry["cite"]}
    assert cited <= set(load_bibliography())
    columns = {c for e in spec["lesion_columns"] for c in e.get("columns", [e.get("column")])}
    assert columns <= set(COLUMNS)


def test_zones_from_the_persons_own_segmentation_are_called_so(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    given = {
        "detector": "classical",
        "detector_parameters": {"threshold": 0.35},
        "scheme": "MARS",
        "zones": "segmentation",
        "zones_from": "freesurfer",
    }
    tree.add("sub-01_T2starw", [make_lesion(1)], parameters=given)
    tree.add("sub-02_T2starw", [make_lesion(1)])
    root = tree.finish()
    texts = {
        subject: " ".join(Page(write_subject_report(root, subject).read_text("utf-8")).words)
        for subject in ("01", "02")
    }
    assert "from the person's own segmentation (freesurfer)" in texts["01"]
    assert "drawn from the person's own segmentation (freesurfer" in texts["01"]
    assert "by carrying the atlas onto the scan" not in texts["01"]
    assert "own segmentation" not in texts["02"]
    assert "drawn from" not in texts["02"]
