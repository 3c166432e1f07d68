"""A small network to measure with: ``python benchmarks/network.py small.onnx``.

Three convolutions of 3 x 3 x 3 (1 to 16 to 16 to 1 channels) with ReLU between them and a
sigmoid at the end, with seeded random weights and no fixed size: it finds nothing, and costs what
such a network costs. Then ``python benchmarks/detection.py --detector small.onnx``.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

CHANNELS = (1, 16, 16, 1)


def main() -> int:
    """Write the network."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="ONNX file to write")
    parser.add_argument("--metadata", nargs="*", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    nodes, constants, last = [], [], "input"
    for number, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
        weights = rng.normal(0, (2 / (27 * before)) ** 0.5, (after, before, 3, 3, 3))
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"w{number}"))
        nodes.append(
            helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1, 1, 1])
        )
        last = f"c{number}"
        if after > 1:
            last = f"r{number}"
            nodes.append(helper.make_node("Relu", [f"c{number}"], [last]))
    # Far below any threshold: what is measured is the network, not what follows it.
    constants.append(numpy_helper.from_array(np.float32(-50), "bias"))
    nodes.append(helper.make_node("Add", [last, "bias"], ["logit"]))
    nodes.append(helper.make_node("Sigmoid", ["logit"], ["output"]))
    axes = [1, 1, "x", "y", "z"]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, axes)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, dict(item.split("=", 1) for item in arguments.metadata))
    onnx.save(model, arguments.path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
