"""Runs the frozen Inception graph of 2015 in a separate process: pixels in, features out.

    PYTHON frozen_graph_worker.py GRAPH < requests > replies

It needs only NumPy and TensorFlow, so that PYTHON can belong to another environment, and
TensorFlow crashes if torch was imported before it. A request is a line of JSON (the shape of a
batch, N H W 3) and its bytes; a reply is a line of JSON (layer to shape, or an error) and float32
arrays.
"""

import json
import os
import sys
from typing import Any, BinaryIO

__all__ = ["serve"]

_INPUT, _POOL, _SPATIAL, _MATMUL = (
    "ExpandDims:0",
    "pool_3:0",
    "mixed_6/conv:0",
    "softmax/logits/MatMul",
)


def serve(graph: str, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers requests until the stream ends."""
    try:
        session, outputs, feed = _open(graph)
        weight = session.run(outputs[2].inputs[1])
    except Exception as error:
        _tell(replies, {"error": type(error).__name__, "text": str(error)})
        return
    _tell(replies, {"ready": [int(n) for n in weight.shape]})
    import numpy as np

    while line := requests.readline():
        shape = json.loads(line)["shape"]
        pixels = np.frombuffer(requests.read(int(np.prod(shape))), np.uint8).reshape(shape)
        # float32 0..255: the graph resizes to 299 and normalises itself.
        pool, spatial = session.run(outputs[:2], {feed: pixels.astype(np.float32)})
        pool = pool.reshape(len(pixels), -1)
        layers = {
            "pool": pool,
            "logits": pool @ weight,  # Without bias, as the Inception Score is defined.
            "spatial": spatial[..., :7].reshape(len(pixels), -1),
        }
        _tell(replies, {name: list(rows.shape) for name, rows in layers.items()})
        for rows in layers.values():
            replies.write(np.ascontiguousarray(rows, np.float32).tobytes())
        replies.flush()


def _open(graph: str) -> tuple[Any, list[Any], Any]:
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    definition = tf.GraphDef()
    with open(graph, "rb") as file:
        definition.ParseFromString(file.read())
    feed = tf.placeholder(tf.float32, [None, None, None, 3])
    outputs = tf.import_graph_def(
        definition,
        input_map={_INPUT: feed},
        return_elements=[_POOL, _SPATIAL, _MATMUL],
        name="inception",
    )
    threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    config = tf.ConfigProto(inter_op_parallelism_threads=threads and 1,
                            intra_op_parallelism_threads=threads)  # fmt: skip
    return tf.Session(config=config), list(outputs), feed


def _tell(replies: BinaryIO, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    # Output that libraries print must not mix with the replies.
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)
        serve(sys.argv[1], sys.stdin.buffer, answer)
