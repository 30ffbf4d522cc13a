"""Inception as its authors froze it: `classify_image_graph_def.pb`, run by TensorFlow.

TTUR and ADM's evaluator (https://arxiv.org/abs/2105.05233) read from it `pool_3:0` (2048),
`mixed_6/conv:0` (first 7 channels, 17 x 17: 2023) and the weight of `softmax/logits/MatMul` (1008
classes, no bias); the graph itself resizes to 299 (bilinear, corners at 0) and normalises.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbench.assets.download import asset_path
from cmbench.core.errors import CmbenchError, Pending, UserError
from cmbench.core.paths import user_path

__all__ = ["TensorFlowInception"]

_ASSET = "inception-2015-12-05-tensorflow"
_WORKER = Path(__file__).with_name("frozen_graph_worker.py")


class TensorFlowInception:
    """The graph in a process of its own, for as long as the context is open.

    Args:
        graph: The frozen graph; else `CMBENCH_INCEPTION_GRAPH`, else the asset.
        python: A Python that has TensorFlow; else `CMBENCH_TENSORFLOW_PYTHON`, else this one.

    Raises:
        Pending: If the graph or TensorFlow is not on this machine, with the command that helps.
        UserError: If the file is not that graph.
    """

    def __init__(self, graph: Path | None = None, python: str | None = None) -> None:
        given = graph or _named("CMBENCH_INCEPTION_GRAPH")
        self.graph = given or asset_path(_ASSET)
        if not self.graph.is_file():
            raise UserError(f"the graph {self.graph} does not exist",
                            fix=f"cmbench assets fetch {_ASSET}")  # fmt: skip
        self._python = python or os.environ.get("CMBENCH_TENSORFLOW_PYTHON") or sys.executable

    def __enter__(self) -> "TensorFlowInception":
        self._process = subprocess.Popen(
            [self._python, str(_WORKER), str(self.graph)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        try:
            self._begin()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Features of pixels (B, C, H, W), 1 or 3 channels: pool, logits and spatial, (B, d).

        Raises:
            CmbenchError: If TensorFlow's process ended.
        """
        colour = np.repeat(pixels, 3, axis=1) if pixels.shape[1] == 1 else pixels
        batch = np.ascontiguousarray(colour.transpose(0, 2, 3, 1))
        stream = self._process.stdin
        assert stream is not None
        try:
            stream.write(json.dumps({"shape": batch.shape}).encode() + b"\n" + batch.tobytes())
            stream.flush()
        except BrokenPipeError:
            raise CmbenchError("TensorFlow's process ended") from None
        shapes = self._reply()
        return {name: self._array(shape) for name, shape in shapes.items()}

    def _begin(self) -> None:
        told = self._reply()
        if told.get("error") in ("ModuleNotFoundError", "ImportError"):
            raise Pending(
                f"the backend needs tensorflow, which {self._python} does not have",
                command="pip install 'cmbench[tensorflow]'",
            )
        if "error" in told:
            raise UserError(
                f"{self.graph} is not the Inception graph of 2015: {told['text']}",
                expected="classify_image_graph_def.pb with ExpandDims:0, pool_3:0, mixed_6/conv:0",
                fix=f"cmbench assets fetch {_ASSET}",
            )

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise CmbenchError(f"TensorFlow's process ended with exit code {code}")
        told: dict[str, Any] = json.loads(line)
        return told

    def _array(self, shape: list[int]) -> NDArray[np.float32]:
        assert self._process.stdout is not None
        size = 4 * int(np.prod(shape))
        data = self._process.stdout.read(size)
        if len(data) != size:
            raise CmbenchError("TensorFlow's process ended in the middle of a batch")
        return np.frombuffer(data, np.float32).reshape(shape).copy()

    def _stop(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return user_path(value, where=variable) if value else None
