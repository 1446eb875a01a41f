"""The GPU benchmark's segment and profile at tiny size, against what a run leaves behind and hand arithmetic."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import _gpu_model, _gpu_profile, _gpu_segment, _gpu_texts, gpu

from magicid_cli import adapters, checkpoints, video
from magicid_cli.models.base import Shape
from magicid_cli.plan import costs
from magicid_cli.stages import prefer


def test_a_segment_trains_by_the_training_loop_and_writes_its_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 lines of metrics, a checkpoint of the last step, two clips; the policy has moved, the reference has not."""
    bench = _gpu_model.open_bench("tiny", torch.device("cpu"), tmp_path)
    shape = Shape(9, 64, 64)
    bench.hold("80gb", shape)
    before = {name: adapters.tensors(bench.family.transformer, name) for name in ("policy", "reference")}
    lengths, accumulate = set[int](), prefer.accumulate

    def seen(family: Any, pairs: Any, *rest: Any) -> Any:
        lengths.update(int(pair.text["prompt_attention_mask"].sum()) for pair in pairs)
        return accumulate(family, pairs, *rest)

    monkeypatch.setattr(prefer, "accumulate", seen)
    begun = time.perf_counter()
    parts = gpu.KINDS["segment"](bench, shape)()
    took = time.perf_counter() - begun
    # A prompt is its words and one token more.
    assert lengths == {words + 1 for words in _gpu_texts.WORDS}
    assert set(parts) == {"text", "train", "denoise", "decode", "write"} and min(parts.values()) > 0
    assert sum(parts.values()) < took
    folder = tmp_path / "segment"
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [*range(1, 21)]
    assert checkpoints.last(folder / "checkpoints") == (20, "segment")
    assert [len(video.read_video(folder / f"{number}.mp4")[0]) for number in (0, 1)] == [9, 9]
    after = {name: adapters.tensors(bench.family.transformer, name) for name in before}
    assert all(torch.equal(value, before["reference"][key]) for key, value in after["reference"].items())
    assert not all(torch.equal(value, before["policy"][key]) for key, value in after["policy"].items())
    assert bench.family.execution.keep == "nothing", "videos are sampled as the stage that samples holds the model"


def test_the_text_encoders_have_the_size_that_the_plan_counts() -> None:
    """No memory is taken: on the meta device, every number is a shape."""
    found = _gpu_texts.random_encoders(torch.device("meta"), torch.bfloat16)
    parameters = [parameter for one in found for parameter in one.parameters()]
    assert sum(map(torch.numel, parameters)) == costs.ARCHITECTURES["hunyuan-video"].text_parameters
    assert {parameter.dtype for parameter in parameters} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_the_share_outside_the_transformer_has_prompts_decoding_and_writing() -> None:
    """1 + 5 + 2 of 100 seconds; training is no part of a video."""
    parts = {"train": 80.0, "text": 1.0, "denoise": 92.0, "decode": 5.0, "write": 2.0}
    assert _gpu_segment.share_outside(parts) == pytest.approx(0.08)


def test_kernels_are_sorted_by_kind() -> None:
    """3 ms of attention, 1 of matrix products: three quarters and one."""
    times = [
        ("cudnn_flash_fprop_sdpa", 3000.0, 60),
        ("nvjet_hsh_128x256", 600.0, 5),
        ("sm90_xmma_gemm_bf16", 400.0, 2),
    ]
    assert _gpu_profile.by_kind(times) == [
        {"kind": "attention", "ms": 3.0, "share": 0.75, "calls": 60, "largest": "cudnn_flash_fprop_sdpa"},
        {"kind": "linear", "ms": 1.0, "share": 0.25, "calls": 7, "largest": "nvjet_hsh_128x256"},
    ]
    assert [_gpu_profile.kind_of(name) for name in ("aten::mm", "aten::bmm", "aten::mul")] == ["linear"] * 2 + [
        "element-wise"
    ]


@pytest.mark.parametrize(("given", "shape"), [((), "9x64x64"), (("17x64x96",), "17x64x96")])
def test_a_profile_of_the_tiny_model_names_attention_and_linear_layers(
    tmp_path: Path, given: tuple[str, ...], shape: str
) -> None:
    gpu.main(["--profile", *given, "--output", str(tmp_path / "results.json")])
    found = json.loads((tmp_path / f"results-profile-{shape}.json").read_text())
    assert {"attention", "linear"} <= {row["kind"] for row in found["rows"]}
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1.0)
    assert found["machine"]["times"] == "of operators on a CPU" and found["machine"]["what"].startswith("tiny on CPU")
    assert found["machine"]["step"] == f"preference step {shape} 80gb"


@pytest.mark.parametrize("text", ["61x320", "60x320x544", "large"])
def test_a_profile_of_no_shape_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--profile", text])
    assert f"{text} is no shape of a video" in capsys.readouterr().err
