"""A model that cannot be used is named when it is loaded, with what is wrong and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from cmbprep.detectors import DetectorInput, get_detector
from cmbprep.errors import ScanError, UsageError
from tests.detectors.onnxmodels import FREE, convolution, identity, save_model

ONE = np.ones((1, 1, 1, 1, 1), np.float32)


def node(kind: str, *inputs: str, output: str = "output", **attributes: object) -> object:
    return helper.make_node(kind, list(inputs), [output], **attributes)


def missing(path: Path) -> None:
    """Nothing is written."""


def text(path: Path) -> None:
    path.write_text("this is not a model")


def empty(path: Path) -> None:
    path.touch()


def cut_short(path: Path) -> None:
    identity(path, {})
    path.write_bytes(path.read_bytes()[:-20])


def folder(path: Path) -> None:
    path.mkdir()


def two_inputs(path: Path) -> None:
    inputs = [("input", (1, 1, *FREE)), ("second", (1, 1, *FREE))]
    save_model(path, [node("Add", "input", "second")], inputs=inputs)


def two_outputs(path: Path) -> None:
    nodes = [node("Sigmoid", "input"), node("Sigmoid", "input", output="deep")]
    save_model(path, nodes, outputs=[("output", None), ("deep", None)])


def three_axes(path: Path) -> None:
    save_model(path, [node("Sigmoid", "input")], inputs=[("input", (1, *FREE[:2]))])


def batch_of_two(path: Path) -> None:
    save_model(path, [node("Sigmoid", "input")], inputs=[("input", (2, 1, *FREE))])


def half_precision(path: Path) -> None:
    save_model(path, [node("Sigmoid", "input")], kind=TensorProto.FLOAT16)


def two_channels(path: Path) -> None:
    save_model(path, [node("Sigmoid", "input")], inputs=[("input", (1, 2, *FREE))])


def hidden_channels(path: Path) -> None:
    convolution(
        path, np.ones((1, 3, 1, 1, 1), np.float32), {}, inputs=[("input", ("n", "c", *FREE))]
    )


def shrinking(path: Path) -> None:
    save_model(path, [node("MaxPool", "input", kernel_shape=[2, 2, 2])])


def classifying(path: Path) -> None:
    save_model(path, [node("GlobalMaxPool", "input", output="g"), node("Sigmoid", "g")])


def not_a_number(path: Path) -> None:
    save_model(path, [node("Log", "input")])


def logits(path: Path) -> None:
    save_model(path, [node("Identity", "input")])


def many_channels(path: Path) -> None:
    convolution(path, np.ones((3, 1, 1, 1, 1), np.float32), {})


def missing_channel(path: Path) -> None:
    convolution(path, ONE, {"cmbprep.output_channel": "1"})


def softmax_of_one(path: Path) -> None:
    convolution(path, ONE, {"cmbprep.activation": "softmax"})


def wrong_patch_axes(path: Path) -> None:
    convolution(path, ONE, {"cmbprep.patch": "32,32"})


def patch_against_model(path: Path) -> None:
    convolution(path, ONE, {"cmbprep.patch": "8,8,8"}, inputs=[("input", (1, 1, 8, 8, 9))])


def unknown_operator(path: Path) -> None:
    save_model(path, [helper.make_node("Microbleed", ["input"], ["output"], domain="")])


def foreign_domain(path: Path) -> None:
    save_model(path, [helper.make_node("Find", ["input"], ["output"], domain="my.own")])


def weights_elsewhere(path: Path) -> None:
    convolution(path, ONE, {}, save_as_external_data=True, location="weights.bin", size_threshold=0)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (missing, "no such file"),
    "text": (text, "not an ONNX model"),
    "empty": (empty, "not an ONNX model"),
    "cut short": (cut_short, "not an ONNX model"),
    "folder": (folder, "cannot be read"),
    "two inputs": (two_inputs, r"2 inputs \(input, second\)"),
    "two outputs": (two_outputs, r"2 outputs \(output, deep\)"),
    "rank": (three_axes, "3 axes"),
    "batch": (batch_of_two, "2 images at a time"),
    "half": (half_precision, "float16"),
    "channels": (two_channels, r"2 channels, but cmbprep.channels names 1 \(magnitude\)"),
    "hidden channels": (hidden_channels, "cannot run the network on an input of shape"),
    "smaller output": (shrinking, "output has the shape"),
    "classifier": (classifying, "output has the shape"),
    "NaN": (not_a_number, "not finite"),
    "logits": (logits, "no probability"),
    "three classes": (many_channels, "3 channels.*output_channel"),
    "no such channel": (missing_channel, "output_channel is 1"),
    "softmax of one": (softmax_of_one, "always 1"),
    "patch axes": (wrong_patch_axes, "2 sizes"),
    "patch and model": (patch_against_model, "takes 9 only"),
    "operator": (unknown_operator, "cannot run this model.*Microbleed"),
    "domain": (foreign_domain, "cannot run this model.*Find"),
    "external weights": (weights_elsewhere, "weights in another file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_model_is_refused_when_it_is_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = BAD[name]
    path = tmp_path / "net.onnx"
    make(path)
    monkeypatch.chdir(tmp_path)  # weights beside the model are not found by chance
    with pytest.raises(UsageError, match=rf"(?s){words}") as raised:
        get_detector(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "What to do: " in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cmbprep.spaceing": "1"}, "cmbprep.spaceing is not known.*spacing_mm"),
        ({"cmbprep.spacing_mm": "1,1"}, "cmbprep.spacing_mm is wrong.*native"),
        ({"cmbprep.spacing_mm": "1,1,x"}, "cmbprep.spacing_mm.*number"),
        ({"cmbprep.spacing_mm": "1,1,nan"}, "cmbprep.spacing_mm.*number"),
        ({"cmbprep.orientation": "RRS"}, "cmbprep.orientation.*three letters"),
        ({"cmbprep.normalisation": "mean"}, "cmbprep.normalisation.*zscore-brain"),
        ({"cmbprep.normalisation": "percentile-brain(99,1)"}, "cmbprep.normalisation.*lower"),
        ({"cmbprep.channels": "magnitude,T1w"}, "cmbprep.channels.*brain_mask"),
        ({"cmbprep.patch": "64"}, "cmbprep.patch.*two or three"),
        ({"cmbprep.patch": "64,64,6.5"}, "cmbprep.patch.*whole"),
        ({"cmbprep.overlap": "0.9"}, "cmbprep.overlap.*0.75"),
        ({"cmbprep.activation": "relu"}, "cmbprep.activation.*sigmoid"),
        ({"cmbprep.output_channel": "-1"}, "cmbprep.output_channel.*from 0"),
        ({"cmbprep.threshold": "50"}, "cmbprep.threshold.*between 0 and 1"),
        ({"cmbprep.definite": "1"}, "cmbprep.definite.*between 0 and 1"),
        ({"cmbprep.threshold": "0.7", "cmbprep.definite": "0.6"}, r"definite \(0.6\) is below"),
        ({"cmbprep.connectivity": "8"}, "cmbprep.connectivity.*26"),
        ({"cmbprep.min_volume_mm3": "-2"}, "cmbprep.min_volume_mm3.*negative"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("where", ["model", "json"])
def test_a_wrong_key_is_named_with_its_file(
    tmp_path: Path, keys: dict[str, str], words: str, where: str
) -> None:
    path = convolution(tmp_path / "net.onnx", ONE, keys if where == "model" else {})
    if where == "json":
        path.with_suffix(".json").write_text(json.dumps(keys))
    with pytest.raises(UsageError, match=words) as raised:
        get_detector(path)
    assert raised.value.path == str(path if where == "model" else path.with_suffix(".json"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        ('{"overlap": 0.1, "cmbprep.overlap": 0.2}', "twice"),
        ('{"threshold": true}', "number"),
        ('{"patch": null}', "number"),
    ],
)
def test_a_broken_file_beside_the_model_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = convolution(tmp_path / "net.onnx", ONE, {})
    path.with_suffix(".json").write_text(content)
    with pytest.raises(UsageError, match=words) as raised:
        get_detector(path)
    assert raised.value.path == str(path.with_suffix(".json"))


def test_the_file_beside_the_model_wins_key_by_key(tmp_path: Path) -> None:
    keys = {
        "author": "somebody",
        "cmbprep.spacing_mm": "1, 1, 2",
        "cmbprep.threshold": "0.3",
        "cmbprep.normalisation": "percentile-brain(0.5, 99.5)",
    }
    path = convolution(tmp_path / "net.onnx", ONE, keys)
    path.with_suffix(".json").write_text(
        json.dumps({"spacing_mm": [0.5, 0.5, 0.5], "cmbprep.definite": 0.6, "patch": "32,32,16"})
    )
    parameters = get_detector(path).parameters
    assert parameters["spacing_mm"] == [0.5, 0.5, 0.5]
    assert (parameters["threshold"], parameters["definite"]) == (0.3, 0.6)
    assert parameters["normalisation"] == "percentile-brain(0.5,99.5)"
    assert parameters["patch"] == [32, 32, 16]
    json.dumps(parameters)


def test_what_nobody_says_has_defaults(tmp_path: Path) -> None:
    parameters = get_detector(convolution(tmp_path / "net.onnx", ONE, {})).parameters
    assert parameters["spacing_mm"] == "native"
    assert parameters["normalisation"] == "zscore-brain"
    assert (parameters["threshold"], parameters["definite"]) == (0.5, 0.8)


def test_numbers_that_fail_on_one_scan_only_fail_that_scan(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "net.onnx",
        [node("Sqrt", "input", output="root"), node("Sigmoid", "root")],
        metadata={"cmbprep.normalisation": "none"},
    )
    with pytest.raises(UsageError, match="not finite"):
        get_detector(path)
    path = save_model(
        tmp_path / "net.onnx",
        [node("Exp", "input", output="e"), node("Sub", "e", "e", output="z"), node("Sigmoid", "z")],
        metadata={"cmbprep.normalisation": "none"},
    )
    shape = (16, 16, 16)
    scan = DetectorInput(
        magnitude=np.full(shape, 5000, np.float32),  # more than exp() can take
        affine=np.eye(4),
        brain_mask=np.ones(shape, bool),
        sequence="swi",
    )
    with pytest.raises(ScanError, match="not finite") as raised:
        get_detector(path).detect(scan)
    assert str(tmp_path) not in str(raised.value)
