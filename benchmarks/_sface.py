"""A face recogniser of SFace's size with random weights, for timings that need no download.

MobileNet of width 1 on a 112-pixel face whose first convolution has stride 1, so that its maps have the sizes that
MobileNet has on 224 pixels, and one matrix from the last map (1024 x 7 x 7) to 128 numbers: 9.6 million parameters in a
file of 38.5 MB and 0.57 billion multiplications a face. The published SFace file has 38.7 MB, takes the same input and
gives as many numbers. How its layers are cut is not copied; the time of one face is near, not equal.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, save

SIDE, DIMENSIONS = 112, 128
# Width of every block's output and its stride.
_BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


class _Graph:
    """Nodes and weights, one after the other."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.multiplications = 0
        self._random = np.random.default_rng(0)

    def weight(self, *shape: int) -> str:
        """A random array with variance 2 / inputs, so that values neither vanish nor explode."""
        name = f"w{len(self.weights)}"
        scale = np.float32((2 / max(1, math.prod(shape[1:]))) ** 0.5)
        values = self._random.standard_normal(shape, dtype=np.float32) * scale
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """A node; returns its output."""
        output = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def convolution(self, x: str, inputs: int, outputs: int, *, size: int, stride: int, side: int, groups: int) -> str:
        """A convolution with bias (as batch normalisation leaves it in a file for inference) and a ReLU."""
        self.multiplications += size * size * (inputs // groups) * outputs * (side // stride) ** 2
        shape: dict[str, Any] = {
            "kernel_shape": [size, size],
            "strides": [stride, stride],
            "pads": [size // 2] * 4,
            "group": groups,
        }
        weights = [self.weight(outputs, inputs // groups, size, size), self.weight(outputs)]
        return self.add("Relu", [self.add("Conv", [x, *weights], **shape)])


def write(path: Path) -> dict[str, float]:
    """Write the network.

    Returns:
        `parameters`, `multiplications` of one face, and `megabytes` of the file.
    """
    graph = _Graph()
    constants = [numpy_helper.from_array(np.array([v], np.float32), n) for n, v in (("mean", 127.5), ("by", 1 / 128))]
    x = graph.add("Mul", [graph.add("Sub", ["data", "mean"]), "by"])
    x, channels, side = graph.convolution(x, 3, 32, size=3, stride=1, side=SIDE, groups=1), 32, SIDE
    for width, stride in _BLOCKS:
        x = graph.convolution(x, channels, channels, size=3, stride=stride, side=side, groups=channels)
        side //= stride
        x = graph.convolution(x, channels, width, size=1, stride=1, side=side, groups=1)
        channels = width
    flat = channels * side * side
    graph.multiplications += flat * DIMENSIONS
    x = graph.add("Flatten", [x], axis=1)
    graph.nodes.append(helper.make_node("Gemm", [x, graph.weight(DIMENSIONS, flat)], ["fc1"], transB=1))
    save(_model(graph, constants), str(path))
    parameters = sum(math.prod(weight.dims) for weight in graph.weights)
    megabytes = round(path.stat().st_size / 1e6, 1)
    return {"parameters": parameters, "multiplications": graph.multiplications, "megabytes": megabytes}


def _model(graph: _Graph, constants: list[TensorProto]) -> ModelProto:
    made: GraphProto = helper.make_graph(
        graph.nodes,
        "recogniser",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, DIMENSIONS])],
        [*graph.weights, *constants],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 12)])
    model.ir_version = 7
    return model
