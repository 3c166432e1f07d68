"""Networks that come with the program, each with its card, and sessions of ONNX Runtime.

The networks are made by ``cmbprep-tools train``.

Sessions give the same bytes on every run.

``onnxruntime`` is imported inside the function, because its import takes a while.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any


def read_model(name: str, folder: Traversable | None = None) -> tuple[bytes, dict[str, Any], str]:
    """Read a network (``.onnx``) and its card (``.json``).

    Parameters
    ----------
    name
        Of both files, without the ending.
    folder
        Where they are; None for the packaged ones.

    Returns
    -------
    content, card, sha256
        Bytes of the network, what is known of it, and the hash of the bytes.
    """
    place = resources.files("cmbprep.models") if folder is None else folder
    content = place.joinpath(f"{name}.onnx").read_bytes()
    card = json.loads(place.joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return content, card, hashlib.sha256(content).hexdigest()


def onnx_session(content: bytes) -> Any:
    """Load a network on one thread of the processor.

    Parameters
    ----------
    content
        The ONNX file, with its weights inside.

    Returns
    -------
    onnxruntime.InferenceSession
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Sums are taken in an order that depends on the number of threads.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # The arena would keep the memory of the largest image for the rest of the process.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    # Weights in other files would not be part of the hash of the content; none are found here.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", "/nonexistent"
    )
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
