"""Access to ONNX Runtime: sessions that give the same bytes on every run.

``onnxruntime`` is imported inside the function, because its import takes a while.
"""

from __future__ import annotations

from typing import Any

__all__ = ["onnx_session"]


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
