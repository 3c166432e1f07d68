"""A page per session: what is on it, its links, and pages that no longer belong there."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmbprep.cli.main import main
from cmbprep.reports.individual import write_reports
from tests.group.pages import rows_of
from tests.reports.outputtree import Tree, make_lesion
from tests.reports.test_individual import Page


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = Tree(tmp_path / "out")
    tree.add("sub-1_ses-a_T2starw", [make_lesion(1)])
    tree.add("sub-1_ses-b_T2starw", [make_lesion(1), make_lesion(2)])
    tree.fail("sub-1_ses-b_swi", "it broke")
    tree.refuse("1", "sub-1_mip.nii.gz", "a projection")
    tree.add("sub-11_ses-a_T2starw")
    return tree.finish()


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("sub-*.html"))


def test_each_session_has_its_scans_and_links_to_the_others(root: Path) -> None:
    written = write_reports(root, "1", per="session")
    assert [path.name for path in written] == ["sub-1.html", "sub-1_ses-a.html", "sub-1_ses-b.html"]
    rest, first, second = (Page(path.read_text()) for path in written)
    assert "a projection" in rest.text and "No blood-sensitive scan" in rest.text
    assert "sub-1_ses-a_T2starw" in first.text and "ses-b_T2starw" not in first.text
    assert "it broke" in second.text and "a projection" not in second.text
    for page in (rest, first, second):
        assert {"sub-1.html", "sub-1_ses-a.html", "sub-1_ses-b.html"} <= set(page.links)
        assert all((root / link).exists() for link in page.links if link.endswith(".html"))
        inner = [link[1:] for link in page.links if link.startswith("#")]
        assert set(inner) <= set(page.ids)


def test_one_page_links_to_no_others(root: Path) -> None:
    (path,) = write_reports(root, "1")
    page = Page(path.read_text())
    assert "ses-a_T2starw" in page.text and "ses-b_T2starw" in page.text
    assert not [link for link in page.links if link.endswith(".html")]


def test_pages_of_the_other_arrangement_are_removed(root: Path) -> None:
    write_reports(root, "11", per="session")
    write_reports(root, "1")
    assert names(root) == ["sub-1.html", "sub-11_ses-a.html"]
    write_reports(root, "1", per="session")
    assert names(root) == [
        "sub-1.html",
        "sub-11_ses-a.html",
        "sub-1_ses-a.html",
        "sub-1_ses-b.html",
    ]
    (root / "sub-1_ses-gone.html").write_text("an older page")
    write_reports(root, "1")
    assert names(root) == ["sub-1.html", "sub-11_ses-a.html"]


def test_scans_without_a_session_have_the_participants_page(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("sub-2_T2starw")
    assert [path.name for path in write_reports(tree.finish(), "2", per="session")] == [
        "sub-2.html"
    ]


def test_the_command_writes_them_and_the_group_page_links_to_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(root.parent / "raw"), str(root)]
    again = [*given, "participant", "--reports-only", "--report-per", "session"]
    assert main([*again, "--dry-run"]) == 0
    assert "write sub-1_ses-a.html" in capsys.readouterr().out
    assert names(root) == []
    assert main(again) == 0
    assert "sub-1_ses-b.html" in names(root) and "sub-11.html" not in names(root)
    assert main([*given, "group"]) == 0
    links = rows_of((root / "group.html").read_text())["reports"]
    assert {"sub-1_ses-a.html", "sub-1_ses-b.html", "sub-11_ses-a.html"} <= set(links)
