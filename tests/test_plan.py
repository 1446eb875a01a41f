"""The plan's arithmetic, against the real classes counted on the meta device, the tables that were derived by hand and
published, and sums done by hand here."""

import importlib.util
import json
import math
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from magicid_cli import adapters, hub, models, plan
from magicid_cli.baselines import consisid, id_animator
from magicid_cli.config import AdapterSettings, Settings, resolve, with_values
from magicid_cli.errors import CODES, MACHINE, MagicIDError
from magicid_cli.events import Events
from magicid_cli.models import tiny
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import VIDEO_MODELS
from magicid_cli.models.execution import Execution, Keep
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.transfers import Transfers
from magicid_cli.plan import costs, footprint, known, machine, measured, running, workload
from magicid_cli.plan import memory as memory_plans
from out_of_memory import IDS, SAID

RUN = ("ingest", "reconstruct", "sample", "score", "select", "prefer")
LARGE = costs.ARCHITECTURES["hunyuan-video"]
TINY = costs.ARCHITECTURES["tiny"]
ATTENTION = AdapterSettings(rank=64)
H100 = plan.Machine(
    gpu="NVIDIA H100 80GB HBM3",
    gpu_memory_gb=84.9,
    rates=machine.usual_rates("NVIDIA H100 80GB HBM3"),
    ram_gb=200.0,
    data_disk_gb=500.0,
)
SHAPES = [
    Shape(61, 720, 1280),
    Shape(61, 544, 960),
    Shape(33, 544, 960),
    Shape(33, 480, 832),
    Shape(61, 320, 544),
    Shape(33, 320, 544),
    Shape(1, 720, 1280),
    Shape(129, 720, 1280),
]


def transformer(arch: costs.Architecture) -> HunyuanVideoTransformer3DModel:
    """The real class, without memory for its numbers."""
    axes = {16: (4, 6, 6), 32: (8, 12, 12), 128: (16, 56, 56)}[arch.head_width]
    with torch.device("meta"):
        return HunyuanVideoTransformer3DModel(
            num_attention_heads=arch.heads,
            attention_head_dim=arch.head_width,
            num_layers=arch.dual,
            num_single_layers=arch.single,
            num_refiner_layers=arch.refiner,
            text_embed_dim=arch.text_width,
            pooled_projection_dim=arch.pooled_width,
            rope_axes_dim=axes,
        )


def run(model: HunyuanVideoTransformer3DModel, arch: costs.Architecture, shape: Shape) -> torch.Tensor:
    with torch.device("meta"):
        return model(
            torch.empty(1, arch.channels, *costs.latent_size(shape)),
            torch.ones(1),
            torch.empty(1, arch.text_tokens, arch.text_width),
            torch.ones(1, arch.text_tokens),
            torch.empty(1, arch.pooled_width),
            torch.ones(1),
            return_dict=False,
        )[0]


def counted(counter: FlopCounterMode) -> dict[str, int]:
    found = {"linear": 0, "attention": 0}
    for operator, flop in counter.get_flop_counts()["Global"].items():
        found["attention" if "bmm" in str(operator) or "attention" in str(operator) else "linear"] += flop
    return found


# --- one forward, one step: costs.py ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def reference() -> Any:
    """The throw-away script that the published tables were printed by."""
    path = Path(__file__).resolve().parents[2] / "shared" / "flops.py"
    if not path.is_file():
        pytest.skip(f"no reference script at {path}")
    spec = importlib.util.spec_from_file_location("flops", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tokens_flop_and_memory_are_the_reference_scripts(reference: Any, shape: Shape) -> None:
    video = reference.tokens(shape.frames, shape.height, shape.width)[3]
    linear, attention = reference.forward(video)
    extra = reference.lora_forward(video, 64)
    cost = costs.forward(LARGE, shape, ATTENTION)
    assert costs.tokens(shape) == video
    # The script leaves out what time, guidance and pooled text cost, 0.0002 %.
    assert cost.linear - costs.conditioning_flop(LARGE) == linear + extra
    assert (cost.attention_forward, cost.attention_backward) == (attention, 0)

    table = reference.costs(video)
    small = costs.conditioning_flop(LARGE)
    step = costs.training_pass(LARGE, shape, ATTENTION)
    expected = table["train pass, full ckpt"]
    assert (step.linear - 3 * small, step.attention_forward, step.attention_backward) == expected
    kept = costs.training_pass(LARGE, shape, ATTENTION, keep="everything")
    expected = table["train pass, no ckpt"]
    assert (kept.linear - 2 * small, kept.attention_forward, kept.attention_backward) == expected
    pair = costs.preference_step(LARGE, shape, ATTENTION)
    expected = table["DPO one-pass (2 ref fwd + 2 train), full ckpt"]
    # The script's reference is the bare base; ours is an adapter on it.
    assert (pair.linear - 8 * small - 2 * extra, pair.attention_forward, pair.attention_backward) == expected

    memory, theirs = footprint.memory(LARGE, shape, ATTENTION), reference.memory(video)
    assert memory.weights == pytest.approx(theirs["weights"], rel=1e-12)
    assert memory.adapters == pytest.approx(theirs["lora"], rel=1e-12)
    assert memory.kept == pytest.approx(theirs["ckpt"], rel=1e-12)
    # What lives inside a block the script counts by reading, 31 tensors; `test_footprint.py` counts it.
    assert memory.total - memory.block == pytest.approx(theirs["one_full"] - theirs["block"], rel=1e-12)


def test_figures_known_from_elsewhere() -> None:
    """Published tables, typed off."""
    assert costs.parameters(LARGE) == 12_821_012_544
    assert [costs.tokens(shape) for shape in SHAPES] == [57600, 32640, 18360, 14040, 10880, 6120, 3600, 118800]
    forward = costs.forward(LARGE, SHAPES[0])
    assert round(forward.flop / 1e15, 3) == 3.254
    assert round(forward.attention_forward / forward.flop, 2) == 0.76
    table = {  # shape → step, stage-1 step, preference step at the best published rates, in seconds
        Shape(61, 720, 1280): (4.8, 21.6, 52.9),
        Shape(61, 544, 960): (1.8, 7.7, 19.1),
        Shape(33, 544, 960): (0.72, 2.9, 7.2),
        Shape(61, 320, 544): (0.33, 1.3, 3.2),
    }
    for shape, expected in table.items():
        works = (
            costs.forward(LARGE, shape, ATTENTION),
            costs.training_pass(LARGE, shape, ATTENTION),
            costs.preference_step(LARGE, shape, ATTENTION),
        )
        for work, seconds in zip(works, expected, strict=True):
            assert work.seconds(costs.BEST_RATES) == pytest.approx(seconds, abs=0.5 * 10 ** -(2 if seconds < 1 else 1))


@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        (TINY, Shape(9, 64, 64)),
        (TINY, Shape(17, 64, 96)),
        (replace(TINY, heads=3, head_width=32, dual=3, refiner=2, text_width=40, text_tokens=77), Shape(5, 128, 64)),
        (LARGE, Shape(61, 320, 544)),
        (LARGE, Shape(61, 720, 1280)),
    ],
)
def test_a_forward_is_what_torch_counts_on_the_real_class(arch: costs.Architecture, shape: Shape) -> None:
    model = transformer(arch)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(model, arch, shape)
    cost = costs.forward(arch, shape)
    assert counted(counter) == {"linear": cost.linear, "attention": cost.attention_forward}
    assert costs.parameters(arch) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("keep", ["nothing", "everything"])
def test_a_training_pass_is_what_torch_counts_on_the_real_class(keep: Keep) -> None:
    """Within 3 %: the formula also charges a backward to what lies before the first adapter."""
    arch, shape, adapter = replace(LARGE, dual=5, single=10), Shape(61, 320, 544), AdapterSettings(rank=8)
    model = transformer(arch)
    adapters.attach(model, "policy", adapters.AdapterSpec(8, 8.0, "attention", False), seed=0)
    adapters.select(model, "policy", trainable=True)
    if keep == "nothing":
        model.enable_gradient_checkpointing()
    with FlopCounterMode(display=False) as counter:
        run(model, arch, shape).mean().backward()
    found = counted(counter)
    cost = costs.training_pass(arch, shape, adapter, keep=keep)
    assert found["linear"] == pytest.approx(cost.linear, rel=0.03)
    # On the meta device attention is two plain products: 2 x in the backward. A fused kernel recomputes one: 2.5 x.
    plain = cost.attention_forward + 2 / 2.5 * cost.attention_backward
    assert found["attention"] == pytest.approx(plain, rel=0.03)


def test_the_decoders_flop_a_pixel_are_what_torch_counts() -> None:
    with torch.device("meta"):
        vae = AutoencoderKLHunyuanVideo()
        for shape in (Shape(17, 320, 544), Shape(61, 320, 544)):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                vae.decoder(vae.post_quant_conv(torch.empty(1, 16, *costs.latent_size(shape))))
            assert costs.decode(shape).linear / 2.4 == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("targets", ["attention", "attention+mlp"])
@pytest.mark.parametrize("double_only", [False, True])
@pytest.mark.parametrize(("arch", "rank"), [(LARGE, 1), (TINY, 4)], ids=["13B", "tiny"])
def test_adapter_parameters_are_those_that_peft_attaches(
    arch: costs.Architecture, rank: int, targets: str, double_only: bool
) -> None:
    model = transformer(arch)
    adapters.attach(model, "a", adapters.AdapterSpec(rank, 1.0, targets, double_only), seed=0)
    attached = sum(parameter.numel() for parameter in adapters.parameters(model, "a").values())
    settings = AdapterSettings(rank=rank, targets=targets, double_blocks_only=double_only)
    assert costs.adapter_parameters(arch, settings) == attached


def test_adapter_parameters_seen_elsewhere() -> None:
    """Rank 16, in millions: 27.5 in the blocks' attention, 68.8 with the MLPs (the refiner's 0.8 is never adapted)."""
    sizes = [
        costs.adapter_parameters(LARGE, AdapterSettings(rank=16, targets=t)) for t in ("attention", "attention+mlp")
    ]
    assert [round(size / 1e6, 1) for size in sizes] == [27.5, 68.8]
    assert costs.adapter_parameters(LARGE, ATTENTION) == 110_100_480


def test_costs_add_and_scale() -> None:
    cost = costs.Cost(1e12, 2e12, 4e12, 1) * 2 + costs.Cost(1e12)
    assert cost == costs.Cost(3e12, 4e12, 8e12, 2)
    assert cost.flop == 15e12
    assert cost.seconds(costs.Rates(3, 2, 4)) == 1 + 2 + 2


def test_memory_of_both_adapters_of_the_second_stage() -> None:
    """Float32 of 110.1 M parameters: 0.44 GB; weight, gradient, two moments; then reference and two gradients more."""
    shape = Shape(61, 320, 544)
    copies = [footprint.memory(LARGE, shape, ATTENTION, training=False).adapters]
    copies += [footprint.memory(LARGE, shape, ATTENTION, reference=two).adapters for two in (False, True)]
    assert copies == pytest.approx([0.44040192 * n for n in (1, 4, 7)])
    assert footprint.memory(LARGE, shape, ATTENTION, training=False).kept == 0
    assert footprint.memory(LARGE, shape, ATTENTION, value_bytes=4).weights == pytest.approx(51.284050176)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny") / "tiny")


def held(checkpoint: Path, **how: Any) -> Hunyuan:
    """The tiny model with its trained adapter, held in some way on the CPU."""
    execution = Execution(**how)
    family = Hunyuan(checkpoint, commit="tiny", device="cpu", dtype=torch.float32, execution=execution)
    family.load("transformer")
    adapters.attach(family.transformer, "policy", adapters.AdapterSpec(4, 4.0, "attention", False), seed=0)
    adapters.select(family.transformer, "policy", trainable=True)
    family.arrange()
    return family


@pytest.mark.parametrize("base", ["full", "fp8", "int8", "nf4"])
def test_a_stored_base_takes_the_bytes_that_are_counted_on_the_real_class(checkpoint: Path, base: Any) -> None:
    """Weights, biases and scales of all blocks of the tiny model, in float32 where they are stored in full."""
    model = held(checkpoint, base=base).transformer
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    tensors = [(n, t) for b in blocks for n, t in [*b.named_parameters(), *b.named_buffers()] if ".lora_" not in n]
    counted = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors)
    expected = 2 * footprint.block_bytes(TINY, "dual", base, 4) + 2 * footprint.block_bytes(TINY, "single", base, 4)
    assert counted == expected


@pytest.mark.parametrize(
    ("keep", "kept_in"), [("nothing", "pinned"), ("attention", "pinned"), ("attention", "inputs pinned")]
)
def test_what_waits_in_main_memory_is_what_is_counted_on_the_real_class(
    checkpoint: Path, keep: Any, kept_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor that a training pass of the tiny model hands over; 48 video tokens and 256 of text."""
    family, sizes = held(checkpoint, keep=keep, kept_in=kept_in), list[int]()
    real = Transfers.to_host

    def to_host(transfers: Transfers, tensor: torch.Tensor) -> Any:
        sizes.append(tensor.numel() * tensor.element_size())
        return real(transfers, tensor)

    monkeypatch.setattr(Transfers, "to_host", to_host)
    text = {
        "prompt_embeds": torch.randn(256, 32),
        "prompt_attention_mask": torch.ones(256, dtype=torch.int64),
        "pooled_prompt_embeds": torch.randn(16),
    }
    family.predict(torch.randn(16, 3, 8, 8), torch.tensor([0.5]), text, 1.0).mean().backward()
    here = Execution(keep=keep if kept_in == "pinned" else "nothing")
    kept = footprint.memory(TINY, Shape(9, 64, 64), AdapterSettings(rank=4), value_bytes=4, execution=here).kept
    # The normaliser stays on the device: for four blocks, 304 tokens and two heads a number of four bytes.
    normaliser = 4 * 304 * 2 * 4 if here.keep == "attention" else 0
    assert sum(sizes) == pytest.approx(kept * 1e9 - normaliser)


def test_memory_of_the_13b_model_held_in_other_ways() -> None:
    """By hand at 61x320x544: 11,136 tokens of width 3072 in bfloat16 are 0.0684 GB; a dual block is 0.680 GB."""
    shape, hidden = Shape(61, 320, 544), 11_136 * 3072 * 2 / 1e9

    def memory(**how: Any) -> footprint.Memory:
        return footprint.memory(LARGE, shape, ATTENTION, execution=Execution(**how))

    assert memory().kept == pytest.approx(60 * hidden)
    every = memory(keep="everything")
    assert every.kept == pytest.approx((20 * 24.3 + 40 * 21.2) * hidden)
    assert every.block == pytest.approx((35.2 - 20.2) * hidden)
    assert memory(keep="attention").kept == pytest.approx(60 * (2 * hidden + 11_136 * 24 * 4 / 1e9))
    out = memory(kept_in="pinned")
    assert (out.kept, out.pinned) == pytest.approx((2 * hidden, 60 * 2**27 / 1e9)), "a power of two above 68 MB"
    both = memory(keep="attention", kept_in="pinned")
    half = memory(keep="attention", kept_in="inputs pinned")
    normalisers = 60 * 11_136 * 24 * 4 / 1e9
    assert (both.kept, both.pinned) == pytest.approx((4 * hidden + normalisers, 120 * 2**27 / 1e9))
    assert (half.kept, half.pinned) == pytest.approx((62 * hidden + normalisers, 60 * 2**27 / 1e9))
    streamed = memory(offload="blocks", kept_in="pinned")
    assert streamed.weights == pytest.approx(2 * 0.6797 + 0.7235, rel=0.01)
    assert streamed.pinned == pytest.approx(out.pinned + 25.642 - 0.7235, rel=0.001)
    assert [memory(base=base).weights for base in ("fp8", "int8")] == pytest.approx([13.2, 13.2], rel=0.01)
    assert memory(base="nf4").weights == pytest.approx(7.35, rel=0.01)


def test_memory_inside_a_block_follows_from_what_is_adapted_and_whether_it_is_trained() -> None:
    """By hand at 61x720x1280: 57,856 tokens of width 3072 in bfloat16 are 0.3555 GB."""
    shape, hidden = Shape(61, 720, 1280), 57_856 * 3072 * 2 / 1e9

    def block(targets: str, training: bool, double_only: bool = False) -> float:
        adapter = AdapterSettings(targets=targets, double_blocks_only=double_only)
        return footprint.memory(LARGE, shape, adapter, training=training).block / hidden

    assert [block(targets, True) for targets in ("attention", "attention+mlp")] == pytest.approx([35.2, 50.4])
    assert [block(targets, False) for targets in ("attention", "attention+mlp")] == pytest.approx([21, 29])
    assert block("attention", True, double_only=True) == pytest.approx(32.3)
    # With products in 8 bits: 1.6 tensors more while a single block is recomputed, and 16.8 million numbers twice.
    products = Execution(base="fp8-products")
    found = footprint.memory(LARGE, shape, ATTENTION, execution=products).block
    assert found == pytest.approx(36.8 * hidden + 2 * 2**26 / 1e9)
    # An adapter on the MLPs, too, is more than plan 24gb promises for attention alone at this shape.
    wanted = settings(shape__size="1280x720", model__memory_plan="24gb", adapter__targets="attention+mlp")
    choice = by_stage(estimated(wanted, on=replace(H100, gpu_memory_gb=25.3)))["prefer"].held
    assert choice is not None and not choice.fits and choice.need.gpu_gb > memory_plans.MOST_GB["24gb"]


# --- a whole run: estimate ----------------------------------------------------------------------------------------


def settings(preset: str | None = None, **values: Any) -> Settings:
    flags = {name.replace("__", "."): value for name, value in values.items()}
    return resolve(flags, preset=preset).settings


def estimated(
    wanted: Settings,
    *,
    on: plan.Machine = H100,
    photos: int = 8,
    todo: Collection[str] = RUN,
    downloads: dict[str, float] | None = None,
    seconds: dict[str, float] | None = None,
    method: str = "",
) -> plan.Estimate:
    return plan.estimate(
        wanted,
        machine=on,
        model=VIDEO_MODELS[wanted.model.name],
        photos=photos,
        todo=todo,
        downloads=downloads or {},
        measured=seconds,
        method=method,
    )


def by_stage(found: plan.Estimate) -> dict[str, plan.Row]:
    return {row.stage: row for row in found.rows}


def test_every_model_of_the_catalog_has_an_architecture_of_its_size() -> None:
    assert {name: costs.parameters(arch) for name, arch in costs.ARCHITECTURES.items()} == {
        name: model.parameters for name, model in VIDEO_MODELS.items()
    }


def test_the_hours_of_a_run_are_the_sum_done_by_hand() -> None:
    """At 61×320×544 a forward has L = 151.471, A = 91.432, l = 1.737 TFLOP; 340 TFLOP/s; decoding is 443 TFLOP.

    Attention outputs are kept: there is room for them on one H100.
    """
    linear, attention, extra, rate = 151.471172616192, 91.432069103616, 1.736966144, 340.0
    step, pair = 3 * linear + 4 * extra + 3.5 * attention, 8 * linear + 10 * extra + 9 * attention
    forward, decoding = linear + extra + attention, 2.4 * 17.4e-6 * 61 * 320 * 544
    rows = by_stage(estimated(settings(prefer__beta=500.0, prefer__guards=False, pairs__held_out=0)))
    assert rows["reconstruct"].seconds == pytest.approx(1000 * step / rate, rel=1e-4)
    assert rows["sample"].seconds == pytest.approx(120 * (50 * forward + decoding) / rate, rel=1e-4)
    assert rows["prefer"].seconds == pytest.approx(4000 * pair / rate, rel=1e-4)
    assert rows["ingest"].seconds == 8 * 1.0
    assert rows["score"].seconds == 128 * 5.0
    # 32 probe steps, and 16 times four forwards for each of 10 held-out pairs.
    more = by_stage(estimated(settings(prefer__guards=False)))["prefer"].seconds or 0.0
    assert more == pytest.approx((4032 * pair + 16 * 10 * 4 * forward) / rate, rel=1e-4)
    # The guards look at four videos at steps 0, 800, … 4000, and at the held-out pairs four times more.
    guarded = by_stage(estimated(settings()))["prefer"].seconds
    looks = 6 * 4 * (50 * forward + decoding) + 4 * 10 * 4 * forward
    assert guarded == pytest.approx(more + looks / rate, rel=1e-4)


def test_stage_1_on_single_frames_costs_what_one_frame_costs() -> None:
    """A step on one frame is one at that shape, in time and memory; the rest of the run stays as it is."""
    usual = by_stage(estimated(settings()))
    frame = by_stage(estimated(settings(reconstruct__clip="frame")))
    assert frame["reconstruct"] == by_stage(estimated(settings(shape__frames=1)))["reconstruct"]
    assert frame["reconstruct"] != usual["reconstruct"]
    assert frame == {**usual, "reconstruct": frame["reconstruct"]}


def test_the_presets_hours_on_one_h100() -> None:
    default, paper = estimated(settings()), estimated(settings("paper"))
    assert default.seconds is not None and paper.seconds is not None
    assert default.seconds / 3600 == pytest.approx(9.23, abs=0.05), "the default must stay below ten hours"
    assert paper.seconds / 3600 == pytest.approx(143.0, abs=0.5)
    assert all(row.basis == "estimated" for row in (*default.rows, *paper.rows))
    assert "340 TFLOP/s on NVIDIA H100 80GB HBM3" in default.assumptions[0]


def test_only_stages_to_do_are_planned_in_the_runs_order() -> None:
    found = estimated(settings(), todo={"prefer", "score"})
    assert [row.stage for row in found.rows] == ["score", "prefer"]
    assert estimated(settings(), todo=()).seconds == 0
    assert estimated(settings(), todo=()).memory_gb == 0


def test_what_was_measured_replaces_the_estimate() -> None:
    found = by_stage(estimated(settings(), seconds={"prefer": 7.5}))
    assert (found["prefer"].basis, found["prefer"].seconds) == ("measured", 4000 * 7.5)
    assert found["sample"].basis == "estimated"


@pytest.mark.parametrize(
    ("gpu", "dtype"),
    [("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "auto"), ("NVIDIA H100 80GB HBM3", "float32"), (None, "auto")],
)
def test_hours_stay_unknown_where_nothing_was_published(gpu: str | None, dtype: str) -> None:
    on = replace(H100, gpu=gpu, rates=machine.usual_rates(gpu))
    found = estimated(settings(model__dtype=dtype), on=on)
    assert found.seconds is None
    assert by_stage(found)["prefer"].basis == "unknown"
    assert [row["time"] for row in found.as_rows() if row["stage"] == "prefer"] == ["unknown"]
    assert "not known" in found.assumptions[0]


def test_other_gpus_are_slower_by_their_peak() -> None:
    """A100: 180 TFLOP/s seen; RTX 4090: the same share of its 165 as the A100's of its 312."""
    rates = {name: machine.usual_rates(name) for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090")}
    assert [found and found.linear for found in rates.values()] == pytest.approx([180.0, 180 * 165 / 312])


def test_the_tiny_model_is_planned_in_seconds_on_a_cpu() -> None:
    found = estimated(settings(model__name="tiny"), on=replace(H100, gpu=None, rates=None))
    assert found.seconds is not None and 5 < found.seconds < 60
    assert plan.check(found) == []


def test_generate_uses_its_own_shape_and_doubles_for_true_guidance() -> None:
    one = estimated(settings(), todo={"generate"}).rows[0]
    denoising = 50 * costs.forward(LARGE, Shape(61, 720, 1280), ATTENTION).flop / 340e12
    decoding = costs.decode(Shape(61, 720, 1280)).flop / 340e12
    assert one.seconds == pytest.approx(denoising + decoding, rel=1e-9)
    two = estimated(settings(generate__true_guidance=6.0, generate__count=3), todo={"generate"}).rows[0]
    assert two.seconds == pytest.approx(3 * (2 * denoising + decoding), rel=1e-9)


def test_disk_is_latents_clips_adapters_and_checkpoints() -> None:
    """Rank 64: 0.4404 GB an adapter, three times that for each of three checkpoints; 16×16×40×68 float32 latents."""
    training = 0.44040192 * (1 + 9)
    latents, clip = 16 * 16 * 40 * 68 * 4 / 1e9, 61 * 320 * 544 / 8 / 1e9
    assert estimated(settings(prefer__guards=False), todo={"prefer"}).data_gb == pytest.approx(training)
    assert estimated(settings(), todo={"prefer"}).data_gb == pytest.approx(training + 5 * 0.44040192), "five looks"
    assert estimated(settings(), todo={"reconstruct"}).data_gb == pytest.approx(training + 8 * latents)
    assert estimated(settings(), todo={"sample"}).data_gb == pytest.approx(128 * (latents + clip))


def test_plain_data_is_json_and_rows_are_text() -> None:
    found = estimated(settings(), downloads={"a/b": 41.9})
    data = json.loads(json.dumps(found.as_dict()))
    assert data["tokens"] == 10880
    assert data["seconds"] == found.seconds
    assert data["downloads_gb"] == {"a/b": 41.9}
    assert [stage["stage"] for stage in data["stages"]] == list(RUN)
    assert all(isinstance(cell, str) for row in found.as_rows() for cell in row.values())


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (5.4, "5 s"), (119, "119 s"), (150, "2.5 min"), (36000, "10.0 h")]
)
def test_durations_as_a_person_says_them(seconds: float | None, text: str) -> None:
    assert plan.duration(seconds) == text


# --- times of known GPUs -------------------------------------------------------------------------------------------


CUDNN = known.floor_rates("NVIDIA H200", "cudnn")


def step(kind: str, shape: Shape, seconds: float, *, gpu: str = "NVIDIA H200", **how: Any) -> known.Step:
    """Measured with cuDNN's attention, which is what an H100 or H200 takes without further packages."""
    execution = Execution(**{"attention": "cudnn", **how})
    cost = {
        "sampling step": costs.forward(LARGE, shape, ATTENTION),
        "preference step": costs.preference_step(LARGE, shape, ATTENTION, keep=execution.keep),
        "decode": costs.decode(shape),
    }[kind]
    floor = cost.seconds(known.floor_rates(gpu, execution.attention))
    return known.Step(gpu, kind, shape, known.held(execution, kind), seconds, floor)


def on(gpu: str) -> plan.Machine:
    return replace(H100, gpu=gpu, rates=machine.usual_rates(gpu))


def test_nothing_about_a_gpu_is_shipped_that_was_not_measured() -> None:
    """The file that comes with magicid can be read; every row of it names a GPU that the plan knows."""
    assert all(one.gpu in machine.KNOWN_GPUS and one.seconds > 0 for one in known.shipped())


def test_a_measured_step_is_taken_as_it_is_and_others_follow_from_its_distance_to_the_floor() -> None:
    """Twice the floor at 10,880 tokens, 1.5 times at 57,600: as it is there; at the geometric mean of both, 1.75."""
    small, large = Shape(61, 320, 544), Shape(61, 720, 1280)
    keep: Keep = "attention"
    floor = {shape: costs.preference_step(LARGE, shape, ATTENTION, keep=keep) for shape in (small, large)}
    steps = [
        step("preference step", shape, factor * floor[shape].seconds(CUDNN), keep=keep)
        for shape, factor in ((small, 2.0), (large, 1.5))
    ]

    def seconds(shape: Shape, gpu: str = "NVIDIA H200", kind: str = "preference step", **how: Any) -> Any:
        execution = Execution(**{"keep": keep, **how})
        cost = costs.preference_step(LARGE, shape, ATTENTION, keep=execution.keep)
        return (*known.seconds(kind, cost, shape, execution, on(gpu), steps), cost)

    assert seconds(small)[:2] == (steps[0].seconds, "measured")
    between = Shape(73, 480, 800)  # 28,500 tokens
    found, basis, cost = seconds(between)
    share = math.log(28_500 / 10_880) / math.log(57_600 / 10_880)
    assert (basis, costs.tokens(between)) == ("estimated", 28_500)
    assert found == pytest.approx((2.0 - 0.5 * share) * cost.seconds(CUDNN))
    beyond, _, cost = seconds(Shape(129, 720, 1280))
    assert beyond == pytest.approx(1.5 * cost.seconds(CUDNN))
    # Held otherwise, or on another GPU: its own floor, the same factor. An A100 has 312 of 989.
    other, basis, cost = seconds(small, keep="nothing")
    assert (other, basis) == (pytest.approx(2.0 * cost.seconds(CUDNN)), "estimated")
    slower, basis, cost = seconds(small, gpu="NVIDIA A100-SXM4-80GB")
    assert (slower, basis) == (pytest.approx(2.0 * cost.seconds(costs.BEST_RATES) * 989 / 312), "estimated")
    # Of what was measured on that other GPU, the same way of being held counts alone.
    streamed = step("preference step", small, 9 * floor[small].seconds(CUDNN), keep="nothing", offload="blocks")
    execution = Execution(keep=keep)
    unchanged, _ = known.seconds(
        "preference step", floor[small], small, execution, on("NVIDIA H800"), [*steps, streamed]
    )
    assert unchanged == pytest.approx(steps[0].seconds)
    # Of another kind nothing is known but what others report; of another GPU not even that.
    assert seconds(small, kind="decode")[0] == pytest.approx(
        seconds(small)[2].seconds(machine.usual_rates("NVIDIA H200"))
    )
    assert seconds(small, gpu="NVIDIA H200 MIG 1g.18gb")[:2] == (None, "unknown")


@pytest.mark.parametrize(
    ("kernel", "rates"), [("flash-3", (648, 561)), ("flash-2", (370, 322)), ("torch-efficient", (370, 322))]
)
def test_a_step_measured_with_one_attention_kernel_is_estimated_for_another(
    kernel: Any, rates: tuple[int, int]
) -> None:
    """Twice its floor with cuDNN (595 and 516 TFLOP/s): twice that of the other kernel's published rates."""
    shape = Shape(61, 720, 1280)
    cost = costs.preference_step(LARGE, shape, ATTENTION)
    steps = [step("preference step", shape, 2 * cost.seconds(costs.Rates(794.5, 595, 516)))]

    def seconds(attention: Any, where: plan.Machine) -> tuple[float | None, str]:
        return known.seconds("preference step", cost, shape, Execution(attention=attention), where, steps)

    here = replace(on("NVIDIA H200"), assumed=True)
    assert seconds("auto", here) == seconds("cudnn", here) == (steps[0].seconds, "measured")
    expected = 2 * cost.seconds(costs.Rates(794.5, *rates))
    assert seconds(kernel, here) == (pytest.approx(expected), "estimated")
    # Of older GPUs no comparison of kernels is known.
    there = replace(on("NVIDIA A100-SXM4-80GB"), assumed=True)
    assert seconds(kernel, there)[0] == pytest.approx(2 * cost.seconds(costs.BEST_RATES) * 989 / 312)


def test_a_step_measured_with_one_adapter_is_scaled_by_flop_to_another() -> None:
    shape = Shape(61, 320, 544)
    costly = costs.preference_step(LARGE, shape, AdapterSettings(rank=64, targets="attention+mlp"))
    steps = [step("preference step", shape, 5.0)]
    found, basis = known.seconds("preference step", costly, shape, Execution(), on("NVIDIA H200"), steps)
    assert (found, basis) == (pytest.approx(5.0 * costly.seconds(CUDNN) / steps[0].floor_s), "estimated")
    assert found is not None and found > 5.0


@pytest.mark.parametrize(
    ("gpu", "asked", "kernel"),
    [
        ("NVIDIA H200", "auto", "cudnn"),
        ("NVIDIA A100-SXM4-80GB", "auto", "torch-flash"),
        ("NVIDIA GeForce RTX 5090", "auto", "cudnn"),
        ("NVIDIA H200", "flash-2", "flash-2"),
        ("NVIDIA H200 MIG 1g.18gb", "auto", None),
    ],
)
def test_the_plan_says_which_attention_kernel_it_is_for(gpu: str, asked: str, kernel: str | None) -> None:
    """For a GPU that is not here, of torch's own kernels unless one is named: what is installed here does not count."""
    found = estimated(settings(model__attention=asked), on=replace(on(gpu), assumed=True))
    assert found.attention == found.as_dict()["attention_kernel"] == kernel


def test_a_stage_is_measured_only_if_every_part_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, gpu = Shape(61, 320, 544), "NVIDIA H100 80GB HBM3"
    steps = [step("preference step", shape, 4.0, gpu=gpu, keep="attention")]
    monkeypatch.setattr(known, "shipped", lambda: tuple(steps))
    alone = settings(prefer__beta=500.0, prefer__guards=False, pairs__held_out=0)
    found = by_stage(estimated(alone))["prefer"]
    assert (found.seconds, found.basis) == (4000 * 4.0, "measured")
    assert by_stage(estimated(settings()))["prefer"].basis == "estimated", "looks and held-out pairs are not"
    # A sampled video does not depend on what training keeps.
    steps += [step(kind, shape, 0.5, gpu=gpu) for kind in ("sampling step", "decode")]
    whole = by_stage(estimated(settings()))
    assert (whole["prefer"].basis, whole["sample"].basis) == ("measured", "measured")
    assert whole["sample"].seconds == pytest.approx(120 * (50 * 0.5 + 0.5))


def test_every_gpu_that_can_be_asked_for_is_planned_and_others_are_refused_with_the_list() -> None:
    shorts = [gpu.short for gpu in machine.KNOWN_GPUS.values() if gpu.short]
    assert len(set(shorts)) == len(shorts) and {"h100", "h200", "a100", "4090"} <= set(shorts)
    for short in shorts:
        there = machine.elsewhere(replace(H100, ram_gb=8.0, data_disk_gb=1.0), machine.gpu_called(short), asked=True)
        found = estimated(settings(), on=there)
        assert found.seconds and plan.check(found) == [], "what this machine lacks does not count"
        assert found.assumptions[0].startswith("These figures are for one NVIDIA")
    with pytest.raises(MagicIDError, match="'h1000'") as caught:
        machine.gpu_called("h1000")
    assert caught.value.code == "settings-unknown" and "4090, 5090, a100" in caught.value.hint


@pytest.mark.parametrize(
    ("memory", "size", "chosen", "kept_in", "offload"),
    [
        (84.9, "544x320", "80gb", "gpu", "none"),
        (150.0, "1280x720", "80gb", "gpu", "none"),
        (100.0, "1280x720", "80gb", "gpu", "none"),
        (84.9, "1280x720", "80gb", "inputs pinned", "none"),
        (60.0, "1280x720", "80gb", "pinned", "none"),
        (42.0, "1280x720", "48gb", "pinned", "none"),
        (25.3, "544x320", "24gb", "pinned", "blocks"),
        (25.3, "1280x720", "24gb", "pinned", "blocks"),
    ],
)
def test_the_plan_follows_from_free_memory_and_shape(
    memory: float, size: str, chosen: str, kept_in: str, offload: str
) -> None:
    found = by_stage(
        estimated(settings(shape__size=size, prefer__guards=False), on=replace(H100, gpu_memory_gb=memory))
    )
    choice = found["reconstruct"].held
    assert choice is not None and choice.fits
    assert (choice.plan, choice.execution.kept_in, choice.execution.offload) == (chosen, kept_in, offload)
    assert choice.need.gpu_gb + 1 <= memory
    # The text encoders are 15.3 GB and a tenth.
    assert choice.execution.text_encoder == "full"
    small = by_stage(estimated(settings(), on=replace(H100, gpu_memory_gb=16.0)))["sample"].held
    assert small is not None and small.execution.text_encoder == "cpu"


def test_a_larger_gpu_is_used_unless_a_plan_was_asked_for_by_name() -> None:
    """By hand at 61x720x1280, in GB: 25.6 of weights, 3.1 of adapters, 42.7 kept and 12.5 in a block are 84.2.

    Without inputs 63.6; without attention outputs, too, 43. 11 GB of 60 tensors that wait are 32 in powers of two.
    """
    on, found = replace(H100, gpu_memory_gb=150.0), {}
    for name in ("auto", "80gb"):
        wanted = settings(shape__size="1280x720", model__memory_plan=name)
        choice = by_stage(estimated(wanted, on=on))["prefer"].held
        assert choice is not None and choice.fits and choice.plan == "80gb"
        found[name] = choice
    assert [one.execution.kept_in for one in found.values()] == ["gpu", "inputs pinned"]
    assert [one.need.gpu_gb for one in found.values()] == pytest.approx([84.2, 63.6], abs=0.1)
    assert [one.need.pinned_gb for one in found.values()] == pytest.approx([0.0, 60 * 2**29 / 1e9])
    # A plan that is named after a smaller card does more on a larger one, too.
    for name, fits in (("auto", True), ("24gb", False)):
        longer = settings(shape__size="1280x720", shape__frames=129, model__memory_plan=name)
        choice = by_stage(estimated(longer, on=replace(H100, gpu_memory_gb=50.0)))["prefer"].held
        assert choice is not None and choice.plan == "24gb" and choice.need.gpu_gb > memory_plans.MOST_GB["24gb"]
        assert choice.fits is fits


@pytest.mark.parametrize("name", ["80gb", "48gb", "24gb"])
def test_every_plan_does_every_stage_at_full_shape_on_its_card(name: str) -> None:
    """76, 46 and 23 GB: the cards' own less what the driver takes and one to spare."""
    for size in ("1280x720", "960x544", "544x320"):
        wanted = settings(shape__size=size, model__memory_plan=name)
        rows = estimated(wanted, todo=(*RUN, "generate")).rows
        held = [row.held for row in rows if row.held]
        assert len(held) == 4
        assert all(one.plan == name and one.fits and one.need.gpu_gb <= memory_plans.MOST_GB[name] for one in held)


@pytest.mark.parametrize(
    ("memory", "size", "chosen", "guided"),
    [
        (84.9, "1280x720", "80gb", "one batch"),
        (40.5, "1280x720", "80gb", "two passes"),
        (25.3, "544x320", "24gb", "one batch"),
        (18.0, "1280x720", "24gb", "two passes"),
    ],
)
def test_true_guidance_is_one_batch_where_there_is_room_for_it(
    memory: float, size: str, chosen: str, guided: str
) -> None:
    """What lives in a block, 21 tensors of the tokens' width, is there twice; the plan says which it is."""
    on = replace(H100, gpu_memory_gb=memory)
    wanted = settings(generate__size=size, generate__true_guidance=6.0)
    found = estimated(wanted, on=on, todo={"generate"})
    held = found.rows[0].held
    assert held is not None and held.fits and (held.plan, held.execution.guided) == (chosen, guided)
    assert ("one batch of two" if guided == "one batch" else "one after the other") in found.assumptions[-1]
    width, height = (int(side) for side in size.split("x"))
    a_block = 21 * (costs.tokens(Shape(61, height, width)) + 256) * 3072 * 2 / 1e9
    shape = Shape(61, height, width)
    how: dict[str, Any] = {"training": False, "execution": held.execution}
    one, two = (footprint.memory(LARGE, shape, ATTENTION, **how, samples=count).total for count in (1, 2))
    assert two - one == pytest.approx(a_block, rel=1e-9)
    assert (two + 1 <= min(memory, memory_plans.MOST_GB[chosen] + 1)) is (guided == "one batch")
    alone = estimated(settings(generate__size=size), on=on, todo={"generate"})
    assert alone.rows[0].held is not None and alone.rows[0].held.execution.guided == "two passes"
    assert not any("guidance" in said for said in alone.assumptions)


def test_without_a_gpu_true_guidance_is_one_batch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    here = replace(H100, gpu=None, rates=None)
    monkeypatch.setattr(running, "this_machine", lambda device: here)
    for guidance, guided in ((1.0, "two passes"), (6.0, "one batch")):
        wanted = settings(model__name="tiny", generate__true_guidance=guidance)
        assert running.held(wanted, "generate")[1].guided == guided
        assert running.held(wanted, "sample")[1].guided == "two passes"
    monkeypatch.setattr(running, "this_machine", lambda device: replace(here, ram_gb=1e-9))
    assert running.held(wanted, "generate")[1].guided == "two passes"


def test_main_memory_that_does_not_suffice_is_named() -> None:
    error = problem(estimated(settings(), on=replace(H100, gpu_memory_gb=25.3, ram_gb=32.0)))
    assert error.code == "memory" and "--base nf4" in error.hint
    assert "33 GB of main memory" in error.message
    assert plan.check(estimated(settings(model__base="nf4"), on=replace(H100, gpu_memory_gb=25.3, ram_gb=32.0))) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_in_the_number_type_of_their_files_are_mapped_and_others_are_copied(
    checkpoint: Path, dtype: torch.dtype
) -> None:
    """The tiny model's files are float32: as such, every weight lies in a file that is mapped, and none otherwise."""
    family = Hunyuan(checkpoint, commit="tiny", device="cpu", dtype=dtype)
    family.load("transformer")
    mapped = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if line.endswith(".safetensors") and str(checkpoint) in line:
            mapped.append(range(*(int(end, 16) for end in line.split()[0].split("-"))))
    inside = [any(one.data_ptr() in there for there in mapped) for one in family.transformer.parameters()]
    assert len(inside) > 50 and set(inside) == {dtype == torch.float32}


def test_main_memory_while_the_model_is_read_is_part_of_the_plan() -> None:
    """By hand: 7.63e9 numbers of the text encoders in 2 bytes are 15.3 GB; 12.8e9 of the base in 4 are 51.3."""
    nf4: dict[str, Any] = {"model__base": "nf4"}
    small = replace(H100, gpu_memory_gb=25.3, ram_gb=16.2)
    error = problem(estimated(settings(**nf4), on=small))
    assert error.code == "memory" and "about 16 GB of main memory while the model is read" in error.message
    assert plan.check(estimated(settings(**nf4), on=replace(small, ram_gb=16.3))) == []
    assert plan.check(estimated(settings(**nf4), on=replace(small, asked=True))) == []
    on_cpu = replace(H100, gpu_memory_gb=17.0, ram_gb=16.3)  # the text encoders compute in main memory
    assert "about 18 GB of main memory while" in problem(estimated(settings(**nf4), on=on_cpu)).message
    error = problem(estimated(settings(**nf4, model__dtype="float32"), on=replace(H100, ram_gb=52.0)))
    assert "about 52 GB of main memory while" in error.message and "--dtype bfloat16" in error.hint
    without = replace(H100, gpu=None, gpu_memory_gb=0.0, rates=None, ram_gb=51.0)
    assert (
        "about 51 GB of main memory while"
        in problem(estimated(settings(**nf4, model__device="cpu"), on=without)).message
    )
    held = by_stage(estimated(settings(**nf4, model__device="cpu"), on=without))["sample"].held
    assert held is not None and held.need.gpu_gb < 51 and not held.fits


def test_a_plan_by_name_that_takes_more_than_its_card_has_says_so() -> None:
    wanted = settings(shape__size="1280x720", shape__frames=129, model__memory_plan="24gb")
    error = problem(estimated(wanted, on=replace(H100, gpu_memory_gb=50.0)))
    assert error.code == "gpu-memory" and "about 32 GB of GPU memory with memory plan 24gb" in error.message
    assert "takes 23 GB at most" in error.message and error.hint == "This fits: --memory-plan auto"


# --- what the machine lacks ---------------------------------------------------------------------------------------


def problem(found: plan.Estimate) -> MagicIDError:
    with pytest.raises(MagicIDError) as caught:
        plan.require(found)
    assert CODES[caught.value.code].exit_code == MACHINE
    return caught.value


def test_a_machine_that_suffices_has_no_problem() -> None:
    found = estimated(settings("paper"), downloads={"a/b": 41.9})
    assert plan.check(found) == []
    plan.require(found)


def test_no_gpu_is_said_first_and_names_the_way_out() -> None:
    none = replace(H100, gpu=None, gpu_memory_gb=0.0, rates=None)
    error = problem(estimated(settings(), on=none))
    assert (error.code, "--model mini" in error.hint) == ("gpu-missing", True)
    # Asked for by name, the CPU only needs the memory: 51 GB of float32 weights and more.
    assert plan.check(estimated(settings(model__device="cpu"), on=none)) == []
    assert problem(estimated(settings(model__device="cpu"), on=replace(none, ram_gb=32.0))).code == "memory"


@pytest.mark.parametrize(
    ("gpu", "lacks"),
    [("a100", True), ("a6000", True), ("3090", True), ("l40s", False), ("4090", False), ("h100", False)],
)
def test_a_gpu_that_is_too_old_for_products_in_fp8_is_refused_by_the_plan(gpu: str, lacks: bool) -> None:
    """Ampere has compute capability 8.0 and 8.6, Ada 8.9, Hopper 9.0; fp8 came with 8.9."""
    there = machine.elsewhere(H100, machine.gpu_called(gpu), asked=True)
    wanted = settings(model__base="fp8-products")
    assert plan.check(estimated(settings(model__base="fp8"), on=there)) == []
    if not lacks:
        assert plan.check(estimated(wanted, on=there)) == []
        return
    # The same GPU when it is here and the run itself asks.
    error = problem(estimated(wanted, on=replace(there, assumed=False, asked=False)))
    assert error.code == "fp8-products" and error.hint.endswith("--base fp8")
    assert "compute capability 8." in error.message and "takes 8.9" in error.message
    assert [one.code for one in plan.check(estimated(wanted, on=there))] == ["fp8-products"]
    assert plan.check(estimated(wanted, on=there, todo={"score"})) == [], "no model, no products"


@pytest.mark.parametrize(
    ("plan_name", "memory", "need", "flags"),
    [
        ("auto", 18.0, 18, "--frames 61 --size 960x544"),
        ("auto", 12.0, 18, "--frames 33 --size 960x544"),
        ("auto", 9.9, 18, "--frames 61 --size 544x320"),
        ("auto", 6.0, 18, "--model mini"),
        ("48gb", 38.0, 42, "--memory-plan auto"),
    ],
)
def test_too_little_gpu_memory_names_what_fits(plan_name: str, memory: float, need: int, flags: str) -> None:
    on = replace(H100, gpu_memory_gb=memory)
    wanted = settings("paper", model__memory_plan=plan_name)
    error = problem(estimated(wanted, on=on))
    assert error.code == "gpu-memory"
    assert f"'prefer' at 61x720x1280 needs about {need} GB" in error.message
    assert f"with memory plan {'24gb' if plan_name == 'auto' else plan_name}" in error.message
    assert flags in error.hint
    if flags.startswith("--frames"):
        _, frames, _, size = flags.split()
        smaller = with_values(wanted, {"shape.frames": int(frames), "shape.size": size})
        assert plan.check(estimated(smaller, on=on)) == []


def test_generate_is_held_against_its_own_shape() -> None:
    error = problem(estimated(settings(), on=replace(H100, gpu_memory_gb=10.0), todo={"generate"}))
    assert "'generate' at 61x720x1280 needs about 10 GB" in error.message
    assert "--frames 61 --size 960x544" in error.hint


@pytest.mark.parametrize(
    ("method", "memory", "shape"), [(consisid, 24.0, "49x480x720"), (id_animator, 9.0, "16x512x512")]
)
def test_a_method_with_a_model_of_its_own_is_told_by_its_own_shape(method: Any, memory: float, shape: str) -> None:
    """No memory plan and no shape of ours helps it."""
    about = estimated(settings(), on=replace(H100, gpu_memory_gb=memory), todo=())
    error = problem(replace(about, rows=tuple(method.plan_rows(settings()))))
    assert error.code == "gpu-memory"
    assert f"'generate' at {shape} needs about" in error.message
    assert error.hint == "Free the GPU, or use a larger one."


def test_disk_is_checked_where_the_files_go() -> None:
    weights = {"a/b": 41.9}
    one = replace(H100, data_disk_gb=45.0)
    assert problem(estimated(settings(), on=one, downloads=weights)).code == "disk-space"
    two = replace(H100, data_disk_gb=45.0, cache_disk_gb=50.0)
    assert plan.check(estimated(settings(), on=two, downloads=weights)) == []
    assert (
        "for weights" in problem(estimated(settings(), on=replace(two, cache_disk_gb=40.0), downloads=weights)).message
    )
    assert "for videos" in problem(estimated(settings(), on=replace(two, data_disk_gb=5.0), downloads=weights)).message


# --- this machine, its cache and what it measured -------------------------------------------------------------------


def test_this_machine_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan.this_machine("cpu", tmp_path / "not" / "there")
    assert (found.gpu, found.rates, found.gpu_memory_gb) == (None, None, 0.0)
    assert found.ram_gb > 0.5
    assert found.data_disk_gb > 0
    assert found.cache_disk_gb is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (140_000_000_000, 150_000_000_000))
    assert plan.this_machine("auto").gpu_memory_gb == 140.0 and plan.this_machine("auto").capability == (9, 0)
    assert plan.this_machine("auto").rates == machine.usual_rates("NVIDIA H100 80GB HBM3")
    assert plan.this_machine("cpu").gpu is None


def test_downloads_are_what_the_cache_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VIDEO_MODELS["hunyuan-video"]
    assert model.source is not None
    states = {model.source.repo: ("absent", None), "opencv/face_detection_yunet": ("cached", 0)}
    other = ("partial", 2_500_000)
    monkeypatch.setattr(hub, "state", lambda source, _: states.get(source.repo, other)[0])
    monkeypatch.setattr(hub, "missing_bytes", lambda source, _: states.get(source.repo, other)[1])
    found = plan.downloads(settings(), model, RUN)
    assert found == {
        model.source.repo: 41.9,
        "opencv/face_recognition_sface": 0.0025,
        "Qwen/Qwen3-VL-4B-Instruct": 0.0025,
    }
    assert plan.downloads(settings(prefer__guards=False), model, {"prefer"}) == {model.source.repo: 41.9}
    guarded = {model.source.repo: 41.9, "opencv/face_recognition_sface": 0.0025}
    assert plan.downloads(settings(), model, {"prefer"}) == guarded
    assert plan.downloads(settings(), model, {"select"}) == {}
    assert plan.downloads(settings(model__name="tiny"), VIDEO_MODELS["tiny"], RUN) == {}


def identity(home: Path, wanted: Settings, begun: dict[str, float]) -> None:
    home.mkdir(exist_ok=True)
    stages = {name: {"begun": time} for name, time in begun.items()}
    manifest = {"format": 1, "settings": {"values": asdict(wanted)}, "stages": stages}
    (home / "manifest.json").write_text(json.dumps(manifest))
    rows = [{"step": step, "seconds": seconds} for step, seconds in ((1, 30.0), (2, 2.0), (3, 2.0))]
    for stage in ("reconstruct", "prefer"):
        (home / stage).mkdir(exist_ok=True)
        (home / stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    video = {"kind": "step", "stage": "sample", "part": "videos"}
    # Two videos of an earlier run, then a run that was interrupted between its third and its first again.
    times = ((5, 1), (6, 2), (20, 1), (61, 2), (100, 3), (900, 1), (940, 2))
    lines = [json.dumps({"time": time, "step": step, **video}) + "\n" for time, step in times]
    (home / "events.jsonl").write_text("".join(lines))


def test_measured_seconds_are_medians_of_this_identitys_own(tmp_path: Path) -> None:
    wanted = settings()
    assert measured.seconds_of(tmp_path / "nobody", wanted) == {}
    identity(tmp_path / "a", wanted, {"reconstruct": 10.0, "sample": 19.0, "prefer": 1000.0})
    # Gaps 41, 39, 40: across the interruption none is counted.
    assert measured.seconds_of(tmp_path / "a", wanted) == {"reconstruct": 2.0, "sample": 40.0, "prefer": 2.0}


def test_a_sampling_that_ended_has_told_its_seconds_with_everything_around_them(tmp_path: Path) -> None:
    wanted = settings()
    identity(tmp_path / "a", wanted, {"reconstruct": 10.0, "sample": 19.0, "prefer": 1000.0})
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    manifest["stages"]["sample"]["result"] = {"timing": {"denoised": 3, "seconds_per_video": 55.0}}
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    assert measured.seconds_of(tmp_path / "a", wanted)["sample"] == 55.0
    manifest["stages"]["sample"]["result"] = {"timing": {}}  # all of them were there
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    assert measured.seconds_of(tmp_path / "a", wanted)["sample"] == 40.0


def test_main_memory_is_the_container_s_where_that_is_less(tmp_path: Path) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "other.max"
    none.write_text("max\n")
    whole = machine.main_memory([str(none), str(tmp_path / "nowhere")])
    assert whole > 2**30
    limit.write_text(f"{2**30}\n")
    assert machine.main_memory([str(limit), str(none)]) == 2**30
    limit.write_text(f"{2**62}\n")  # how the first version of control groups says that there is none
    assert machine.main_memory([str(limit)]) == whole


def test_photos_over_the_limit_are_looked_at_and_no_more() -> None:
    few, many = (plan.for_run(settings(), photos=photos, todo=set(RUN), home=Path()) for photos in (30, 200))
    assert many.data_gb == few.data_gb
    items = [{row.stage: row.items for row in one.rows} for one in (few, many)]
    assert {name for name in items[0] if items[0][name] != items[1][name]} == {"ingest"}


def test_the_guards_looks_are_shared_out_among_the_steps(tmp_path: Path) -> None:
    """Steps of 2 s and looks of 9 s, of which two were taken so far: before the first step, and after the third."""
    wanted = settings()
    every = workload.looks(wanted)
    assert len(every) > 2
    identity(tmp_path / "a", wanted, {"reconstruct": 10.0, "sample": 19.0, "prefer": 1000.0})
    lines = [json.dumps({"step": step, "seconds": 9.0}) + "\n" for step in (0, 3)]
    (tmp_path / "a" / "prefer" / "looks.jsonl").write_text("".join(lines))
    assert measured.seconds_of(tmp_path / "a", wanted)["prefer"] == pytest.approx(
        2.0 + 9.0 * len(every) / wanted.prefer.steps
    )
    for other in ({"prefer.guards": False}, {"prefer.watch_every": 9}, {"prefer.watch_videos": 9}, {"prefer.bank": 9}):
        assert "prefer" not in measured.seconds_of(tmp_path / "a", with_values(wanted, other))


def test_a_bank_saves_the_reference_of_draws_that_are_met_again() -> None:
    """100 pairs, 8 draws each, 40 steps a pair: of 4000 pairs, 800 (1 - (7/8)^40) have the reference measured."""
    values: dict[str, Any] = {"prefer__beta": 500.0, "prefer__guards": False, "pairs__held_out": 0}
    shape = Shape(61, 320, 544)
    (whole,) = workload.preference(settings(**values), LARGE, Execution())
    assert (whole.kind, whole.times) == ("preference step", 1.0)
    anew, known_before = workload.preference(settings(**values, prefer__bank=8), LARGE, Execution())
    measured_s = 800 * (1 - (7 / 8) ** 40)
    assert (anew.kind, known_before.kind) == ("preference step", "stage-1 step")
    assert anew.times == pytest.approx(measured_s / 4000)
    assert known_before.times == pytest.approx(2 * (1 - measured_s / 4000))
    saved = whole.cost.flop - sum((part.cost * part.times for part in (anew, known_before)), costs.Cost()).flop
    forwards = 2 * (1 - measured_s / 4000) * costs.forward(LARGE, shape, ATTENTION).flop
    assert saved == pytest.approx(forwards, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("first-block", (3 * 57_600 + 2 * 256) * 3072),
        ("magcache", 2 * 57_600 * 3072),
        ("taylorseer", 2 * 57_600 * 2 * 2 * 16),
    ],
)
def test_a_step_cache_takes_memory_and_its_steps_are_counted_whole(kind: str, numbers: int) -> None:
    """By hand at 61x720x1280; MagCache denoises one more video for all 120, which nothing decodes."""
    strength: dict[str, Any] = {"repository__step_cache": 2.0, "repository__step_cache_kind": kind}
    large: dict[str, Any] = {"shape__size": "1280x720"}
    without, cached = (by_stage(estimated(settings(**large, **more))) for more in ({}, strength))
    assert (cached["sample"].memory_gb - without["sample"].memory_gb) == pytest.approx(numbers * 2 / 1e9, rel=1e-6)
    assert cached["prefer"] == without["prefer"] and cached["reconstruct"] == without["reconstruct"]
    videos = [
        workload.work_of(settings(**more), VIDEO_MODELS["hunyuan-video"], 8, 2)["sample"] for more in ({}, strength)
    ]
    denoised = [one.items * one.parts[0].times for one in videos]
    assert denoised == [pytest.approx(120 * 50), pytest.approx((121 if kind == "magcache" else 120) * 50)]
    assert videos[0].parts[1] == videos[1].parts[1]
    said = "Repository: every denoising step is counted whole, though the step cache skips some."
    assert said in estimated(settings(**strength)).assumptions
    assert said not in estimated(settings()).assumptions
    assert said not in estimated(settings(**strength), seconds={"sample": 40.0}).assumptions, "measured with the cache"
    assert said not in estimated(settings(**strength), todo={"prefer"}).assumptions


def test_memory_of_the_guards_look_counts_where_it_is_more_than_a_step() -> None:
    """Decoding a tile: 0.493 GB of weights, and 7.2 maps of 256 channels of 17x256x256 pixels, 2 bytes each."""
    decoding = (246_478_803 + 7.2 * 256 * 17 * 256 * 256) * 2 / 1e9
    assert footprint.decoding_memory(LARGE, Shape(61, 320, 544)) == pytest.approx(decoding)
    small: dict[str, Any] = {"shape__frames": 33, "model__memory_plan": "48gb"}
    step = by_stage(estimated(settings(**small, prefer__guards=False)))["prefer"].memory_gb
    held = Execution(kept_in="pinned")
    kept = footprint.memory(LARGE, Shape(33, 320, 544), settings().adapter, reference=True, execution=held)
    assert by_stage(estimated(settings(**small)))["prefer"].memory_gb == kept.weights + kept.adapters + decoding > step
    large = [by_stage(estimated(settings(prefer__guards=guards)))["prefer"].memory_gb for guards in (True, False)]
    assert large[0] == large[1], "of 61 frames a step takes more"


def test_nothing_measured_under_other_settings_counts(tmp_path: Path) -> None:
    wanted = settings()
    identity(tmp_path / "a", wanted, {"reconstruct": 10.0, "sample": 19.0, "prefer": 1000.0})
    for other in ({"shape.size": "960x544"}, {"adapter.rank": 8}, {"model.dtype": "float32"}):
        assert measured.seconds_of(tmp_path / "a", with_values(wanted, other)) == {}
    batch = with_values(wanted, {"prefer.batch": 2})
    assert measured.seconds_of(tmp_path / "a", batch) == {"reconstruct": 2.0, "sample": 40.0}
    skipped = with_values(wanted, {"repository.step_cache": 0.1})
    assert "sample" not in measured.seconds_of(tmp_path / "a", skipped)
    # What takes no time changes nothing.
    slower = with_values(wanted, {"prefer.learning_rate": 1e-6, "prefer.steps": 9, "model.offline": True})
    assert set(measured.seconds_of(tmp_path / "a", slower)) == {"reconstruct", "sample", "prefer"}


def test_a_stage_that_an_earlier_one_overtook_counts_as_not_measured(tmp_path: Path) -> None:
    wanted = settings()
    identity(tmp_path / "a", wanted, {"reconstruct": 2000.0, "sample": 19.0, "prefer": 1000.0})
    assert measured.seconds_of(tmp_path / "a", wanted) == {"reconstruct": 2.0}


def test_a_run_on_this_machine_joins_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "this_machine", lambda device, cache: H100)
    monkeypatch.setattr(hub, "state", lambda *_: "cached")
    identity(tmp_path / "a", settings(), {"reconstruct": 10.0, "sample": 19.0, "prefer": 1000.0})
    found = plan.for_run(settings(), photos=8, todo=RUN, home=tmp_path / "a")
    assert by_stage(found)["prefer"].seconds == 4000 * 2.0
    assert by_stage(found)["sample"].basis == "measured"
    assert (found.downloads, found.machine) == ({}, H100)
    monkeypatch.setattr(plan, "this_machine", lambda device, cache: replace(H100, gpu_memory_gb=8.0))
    with pytest.raises(MagicIDError, match="GPU memory"):
        plan.require(plan.for_run(settings(), photos=8, todo=RUN, home=tmp_path / "a"))


def test_without_a_gpu_the_plan_is_for_one_h100_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = replace(H100, gpu=None, gpu_memory_gb=0.0, rates=None)
    monkeypatch.setattr(plan, "this_machine", lambda device, cache: here)
    found = plan.for_run(settings(), photos=8, todo=RUN, home=tmp_path)
    there = estimated(settings())
    assert found.seconds == there.seconds and found.machine.assumed
    assert found.assumptions[0].startswith("There is no GPU here")
    assert [error.code for error in plan.check(found)] == ["gpu-missing"]
    on_the_cpu = plan.for_run(settings(model__device="cpu"), photos=8, todo=RUN, home=tmp_path)
    assert on_the_cpu.seconds is None and not on_the_cpu.machine.assumed


@pytest.mark.parametrize(("memory", "plans", "fits"), [(50.0, ("80gb", "24gb"), True), (23.0, ("24gb", "24gb"), False)])
def test_what_magic_me_keeps_beside_the_model_counts_in_plan_check_and_run(
    memory: float, plans: tuple[str, str], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama's and CLIP's 14.4 GB, which no stage of MagicID has in memory while it trains."""
    here, wanted = replace(H100, gpu_memory_gb=memory), settings("paper")
    monkeypatch.setattr(running, "this_machine", lambda device: here)
    found = [estimated(wanted, on=here, todo={"reconstruct"}, method=name) for name in ("", "magic-me")]
    (alone,), (beside,) = (one.rows for one in found)
    assert alone.held and alone.held.fits and beside.held
    assert (alone.held.plan, beside.held.plan) == plans
    assert beside.memory_gb - beside.held.need.gpu_gb == pytest.approx(14.4, abs=0.05)
    assert [running.held(wanted, "reconstruct", name)[0] for name in ("", "magic-me")] == list(plans)
    assert (plan.check(found[1]) == []) is fits
    if not fits:
        assert "--memory-plan auto" not in problem(found[1]).hint


def test_every_stage_has_work() -> None:
    assert set(workload.work_of(settings(), VIDEO_MODELS["tiny"], 3, 4)) == set(workload.STAGES)


@pytest.mark.parametrize(
    ("name", "values", "plans"),
    [
        ("reconstruct", {}, ["auto", "48gb"]),
        ("dreambooth", {}, ["auto", "48gb"]),
        ("magic-me", {}, ["auto", "48gb"]),
        # What the first two plans keep for a backward pass is nothing where there is none.
        ("sample", {}, ["auto", "24gb"]),
        ("generate", {}, ["auto", "24gb"]),
        # A small base is not offloaded, so no plan is left that samples in another way.
        ("sample", {"model.base": "nf4"}, ["auto"]),
        ("reconstruct", {"model.base": "nf4"}, ["auto", "48gb"]),
        ("reconstruct", {"model.memory_plan": "80gb"}, ["80gb", "48gb"]),
        ("score", {}, ["auto"]),
    ],
)
def test_out_of_memory_leads_to_a_plan_that_differs_for_the_stage(
    name: str, values: dict[str, Any], plans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU that is only simulated: by hand, which plans are tried where memory always runs out."""
    monkeypatch.setattr(running, "this_machine", lambda device: H100)
    settings, tried = with_values(Settings(), {"model.name": "hunyuan-video", **values}), list[str]()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.accelerator, "empty_host_cache", lambda: tried.append("given back"))

    def work(now: Settings) -> None:
        tried.append(now.model.memory_plan)
        raise torch.OutOfMemoryError("of the test")

    with pytest.raises(torch.OutOfMemoryError):
        running.with_next_plan(work, settings, name, Events())
    assert tried == ([plans[0], "given back", plans[1]] if len(plans) > 1 else plans)


@pytest.mark.parametrize("said", [*SAID, RuntimeError("mat1 and mat2 shapes cannot be multiplied")], ids=[*IDS, "else"])
def test_whoever_says_that_memory_ran_out_the_next_plan_is_tried(
    said: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "this_machine", lambda device: H100)
    wanted, tried = with_values(Settings(), {"model.name": "hunyuan-video"}), list[str]()

    def work(now: Settings) -> str:
        tried.append(now.model.memory_plan)
        if len(tried) == 1:
            raise said
        return "done"

    if said in SAID:
        assert running.with_next_plan(work, wanted, "prefer", Events()) == "done"
        assert tried == ["auto", "48gb"]
    else:
        with pytest.raises(RuntimeError, match="mat1"):
            running.with_next_plan(work, wanted, "prefer", Events())
        assert tried == ["auto"]


@pytest.mark.parametrize("said", SAID, ids=IDS)
def test_memory_that_ran_out_outside_the_plans_is_an_error_for_a_person(said: RuntimeError) -> None:
    with pytest.raises(MagicIDError) as caught, models.gpu_memory("merging", "Free the GPU."):
        raise said
    assert caught.value.code == "gpu-memory"
