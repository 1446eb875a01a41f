"""Tiny ONNX files in the shape of the real ones, for tests that must not download anything."""

from pathlib import Path

import numpy as np
from onnx import GraphProto, TensorProto, checker, helper, numpy_helper, save


def write_recogniser(path: Path, *, dimensions: int = 128, seed: int = 0, side: int = 112) -> Path:
    """A face recogniser shaped like SFace: `data` 1x3x112x112 → `fc1` 1x128; random weights, 16 patches a side.

    One strided convolution cuts the picture into 7-pixel patches, one matrix mixes them: linear, so that a test can
    do the same arithmetic in numpy.
    """
    random = np.random.default_rng(seed)
    patches = side // 7
    filters = random.normal(size=(4, 3, 7, 7)).astype(np.float32) / 12
    mixing = random.normal(size=(4 * patches * patches, dimensions)).astype(np.float32) / 32
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["data", "filters"], ["patches"], kernel_shape=[7, 7], strides=[7, 7]),
            helper.make_node("Flatten", ["patches"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "mixing"], ["fc1"]),
        ],
        "tiny_recogniser",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, dimensions])],
        [numpy_helper.from_array(filters, "filters"), numpy_helper.from_array(mixing, "mixing")],
    )
    return _save(graph, path)


def write_classifier(path: Path) -> Path:
    """A network that is no face recogniser: a 112-pixel picture in, one number out."""
    weights = np.ones((3 * 112 * 112, 1), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["data"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["out"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return _save(graph, path)


def _save(graph: GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)])
    model.ir_version = 7
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, str(path))
    return path
