"""Networks of the sizes that the evaluation loads, with random weights: for timings that need no download.

A residual network of 100 layers in the place of the independent face recogniser (AuraFace's file has 261 MB and takes
the same input), CLIP ViT-B/32 by transformers' own configuration, and I3D at full width. Values do not change the time.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import _sface

_STAGES = [(64, 3), (128, 13), (256, 30), (512, 3)]  # width and blocks
_MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def write_recogniser(path: Path) -> None:
    """A residual recogniser of 100 layers: 112 pixels in, 128 numbers out."""
    import onnx
    from onnx import helper

    graph = _sface._Graph()
    side, channels = _sface.SIDE, 64
    x = graph.convolution("data", 3, channels, size=3, stride=1, side=side, groups=1)
    for width, blocks in _STAGES:
        for block in range(blocks):
            stride = 2 if block == 0 else 1
            y = graph.convolution(x, channels, width, size=3, stride=1, side=side, groups=1)
            y = graph.convolution(y, width, width, size=3, stride=stride, side=side, groups=1)
            same = stride == 1 and channels == width
            way = x if same else graph.convolution(x, channels, width, size=1, stride=stride, side=side, groups=1)
            x, channels, side = graph.add("Add", [y, way]), width, side // stride
    x = graph.add("Flatten", [x], axis=1)
    weights = graph.weight(_sface.DIMENSIONS, channels * side * side)
    graph.nodes.append(helper.make_node("Gemm", [x, weights], ["fc1"], transB=1))
    onnx.save(_sface._model(graph, []), str(path))


def write_clip(folder: Path) -> None:
    """CLIP ViT-B/32 in the files of its repository."""
    from tokenizers import Tokenizer, models, processors
    from transformers import CLIPConfig, CLIPModel

    CLIPModel(CLIPConfig()).save_pretrained(folder)
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE({"a": 0, start: 49406, end: 49407}, [], unk_token="a"))
    tokenizer.add_special_tokens([start, end])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 49406), (end, 49407)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    pixels: dict[str, Any] = {"do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3}
    pixels |= {"crop_size": 224, "size": 224, "feature_extractor_type": "CLIPFeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels), encoding="utf-8")


def write_i3d(path: Path) -> None:
    """I3D of Kinetics-400."""
    import torch
    from safetensors.torch import save_file

    units = {"Conv3d_1a_7x7": (3, 64, 7), "Conv3d_2b_1x1": (64, 64, 1), "Conv3d_2c_3x3": (64, 192, 3)}
    for name, (inputs, one, two_a, two_b, three_a, three_b, four) in _MIXED.items():
        units |= {f"Mixed_{name}.b0": (inputs, one, 1), f"Mixed_{name}.b3b": (inputs, four, 1)}
        units |= {f"Mixed_{name}.b1a": (inputs, two_a, 1), f"Mixed_{name}.b1b": (two_a, two_b, 3)}
        units |= {f"Mixed_{name}.b2a": (inputs, three_a, 1), f"Mixed_{name}.b2b": (three_a, three_b, 3)}
    tensors = {"logits.conv3d.weight": torch.randn(400, 1024, 1, 1, 1) / 32, "logits.conv3d.bias": torch.zeros(400)}
    for name, (inputs, outputs, size) in units.items():
        scale = (2 / (inputs * size**3)) ** 0.5
        tensors[f"{name}.conv3d.weight"] = scale * torch.randn(outputs, inputs, size, size, size)
        norm = {"running_mean": 0.0, "running_var": 1.0, "weight": 1.0, "bias": 0.0}
        tensors |= {f"{name}.bn.{part}": torch.full((outputs,), value) for part, value in norm.items()}
    save_file(tensors, path)
