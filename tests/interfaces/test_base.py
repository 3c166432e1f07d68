"""Nodes declared by a signature: inputs, outputs, hashes, and what another process is sent."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest
from nipype.interfaces.base import isdefined, traits
from nipype.pipeline import engine as pe
from traits.api import TraitError

from cmbprep.interfaces.base import FileInterface


class _Counted(TypedDict):
    out_file: str
    count: int
    extra: NotRequired[list[str]]


class Count(FileInterface):
    """Count words."""

    def compute(
        self,
        in_file: str,
        words: list[str],
        scale: float = 1.0,
        times: list[Any] | None = None,
        about: dict[str, Any] | None = None,
        *,
        cwd: Path,
    ) -> _Counted:
        """Count, and write a file into the folder of the node."""
        (cwd / "out.txt").write_text(f"{scale} {times} {about}")
        count = sum(Path(in_file).read_text().count(word) for word in words)
        return {"out_file": str(cwd / "out.txt"), "count": count}


def make(folder: Path, **inputs: Any) -> pe.Node:
    """Make the node anew, as a run that is started again does."""
    interface = Count(in_file=str(folder / "in.txt"), words=["a"], **inputs)
    node = pe.Node(interface, "count", base_dir=str(folder))
    node.config = pe.Workflow(name="any").config
    node.config["execution"]["hash_method"] = "content"  # as cmbprep.engine sets it
    return node


@pytest.fixture
def node(tmp_path: Path) -> pe.Node:
    (tmp_path / "in.txt").write_text("a b a")
    return make(tmp_path)


def test_a_node_returns_what_its_method_returns(node: pe.Node) -> None:
    outputs = node.run().outputs
    assert outputs.count == 2
    assert not isdefined(outputs.extra)
    # An input that is not set takes the default of the method, and is no part of the hash.
    assert Path(outputs.out_file).read_text() == "1.0 None None"
    assert Path(outputs.out_file).parent == Path(node.output_dir())
    assert not isdefined(node.inputs.scale)


def test_inputs_are_checked_by_the_type_hints(node: pe.Node) -> None:
    kinds = {name: type(node.inputs.trait(name).trait_type) for name in ("in_file", "scale")}
    assert kinds == {"in_file": traits.Str, "scale": traits.Float}
    for name, value in (("in_file", 3), ("words", "a"), ("scale", "x"), ("about", [1])):
        with pytest.raises(TraitError):
            setattr(node.inputs, name, value)
    with pytest.raises(TraitError):
        node.inputs.unknown = 1
    with pytest.raises(ValueError, match="'words'"):
        Count(in_file="x").run()


def test_a_node_is_repeated_if_an_input_or_the_content_of_its_file_changes(
    node: pe.Node, tmp_path: Path
) -> None:
    node.run()
    assert make(tmp_path).is_cached()[1]
    assert not make(tmp_path, scale=2.0).is_cached()[1]
    (tmp_path / "in.txt").write_text("b")
    assert not make(tmp_path).is_cached()[1]


def test_a_node_can_be_sent_to_another_process(node: pe.Node) -> None:
    copy = pickle.loads(pickle.dumps(node))
    assert copy.inputs.get_hashval() == node.inputs.get_hashval()
    assert type(copy.inputs) is Count.input_spec
    assert copy.run().outputs.count == 2
