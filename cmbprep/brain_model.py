"""The brain-mask network that comes with the program, ready to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODEL", "BrainModel", "load_brain_model"]

#: Name of the model's files.
MODEL = "brain"

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class BrainModel:
    """A network and its card.

    Attributes
    ----------
    predict
        Gives log-odds (X, Y, Z) of an input (2, X, Y, Z); see
        :mod:`cmbprep.algorithms.brain_extraction`.
    card
        What is known of it.
    sha256
        Of its file.
    """

    predict: Callable[[FloatArray], FloatArray]
    card: Mapping[str, Any]
    sha256: str


@cache
def load_brain_model(folder: Traversable | None = None) -> BrainModel:
    """Load the network.

    Parameters
    ----------
    folder
        Where the model's two files are; None for the packaged ones.

    Raises
    ------
    ValueError
        If the card is of another file.
    """
    import onnxruntime

    place = resources.files("cmbprep.models") if folder is None else folder
    content = place.joinpath(f"{MODEL}.onnx").read_bytes()
    card = json.loads(place.joinpath(f"{MODEL}.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(content).hexdigest()
    if card["sha256"] != digest:
        raise ValueError("the brain model's card is of another file")
    options = onnxruntime.SessionOptions()
    # Sums are taken in an order that depends on the number of threads.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # The arena would keep the memory of the largest image for the rest of the process.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def predict(channels: FloatArray) -> FloatArray:
        (logits,) = session.run(["logits"], {"channels": channels[None]})
        return np.asarray(logits[0, 0], np.float32)

    return BrainModel(predict, card, digest)
