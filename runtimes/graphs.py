"""CUDA graphs: a request whose hundred kernels are launched by one call, into buffers that stay where they are.

A small encoder's kernels are shorter than it takes to launch them one by one. ONNX Runtime records the launches of a
request and plays them back (docs of its CUDA provider, "Using CUDA Graphs"), which needs inputs and outputs at fixed
places on the device, and one recording for each shape.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from edgelm.runtimes import Ids, Logits

__all__ = ["Graphs"]

_Shape = tuple[int, ...]

MOST = 128
"""Recordings that are kept, each of one shape; what is rarer is launched kernel by kernel."""

TOKENS = 2048
"""Requests of more, rows times length, keep the device busy by themselves."""


class Graphs:
    """A session on CUDA whose shapes are recorded when they are seen for the second time.

    One request at a time: a recording has one set of buffers.
    """

    def __init__(self, onnxruntime: Any, session: Any, number: int) -> None:
        """Nothing is recorded yet.

        Args:
            onnxruntime: the module.
            session: that was started with ``enable_cuda_graph``.
            number: of the device.
        """
        self._onnxruntime, self._session, self._number = onnxruntime, session, number
        self._seen, self._held = dict[_Shape, _Shape](), dict[_Shape, _Recording]()
        self._lock = threading.Lock()
        self._plain = onnxruntime.RunOptions()
        self._plain.add_run_config_entry("gpu_graph_id", "-1")

    def run(self, names: None, feed: dict[str, Ids]) -> list[Logits]:
        """As ``InferenceSession.run``.

        Args:
            names: of the outputs; all there are.
            feed: the inputs by name, int32, shape (batch, tokens).

        Returns:
            The one output, float32.
        """
        shape = feed["input_ids"].shape
        with self._lock:
            if shape in self._held:
                return [self._held[shape].run(feed)]
            if shape not in self._seen or len(self._held) == MOST or feed["input_ids"].size > TOKENS:
                outputs: list[Logits] = self._session.run(names, feed, self._plain)
                self._seen[shape] = outputs[0].shape
                return outputs
            name = str(len(self._held) + 1)
            self._held[shape] = _Recording(
                self._onnxruntime, self._session, feed, self._seen[shape], self._number, name
            )
            return [self._held[shape].run(feed)]


class _Recording:
    """One shape's buffers, and the name of what ONNX Runtime records with them."""

    def __init__(
        self, onnxruntime: Any, session: Any, feed: dict[str, Ids], answered: _Shape, number: int, name: str
    ) -> None:
        self._session = session
        self._inputs = {
            key: onnxruntime.OrtValue.ortvalue_from_numpy(values, "cuda", number) for key, values in feed.items()
        }
        self._output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(answered, np.float32, "cuda", number)
        self._binding, self._options = session.io_binding(), onnxruntime.RunOptions()
        for key, value in self._inputs.items():
            self._binding.bind_ortvalue_input(key, value)
        self._binding.bind_ortvalue_output(session.get_outputs()[0].name, self._output)
        self._options.add_run_config_entry("gpu_graph_id", name)

    def run(self, feed: dict[str, Ids]) -> Logits:
        for key, values in feed.items():
            self._inputs[key].update_inplace(values)
        self._session.run_with_iobinding(self._binding, self._options)
        output: Logits = self._output.numpy()
        return output
