"""Packed weights against the formats' definitions, and passes through them against the unpacked weights."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch
from torch import nn

import executions
from live_memory import Live
from magicid_cli import adapters, config, models
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models import storage, tiny
from magicid_cli.models.execution import Execution, Storage
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.storage import PACKINGS, PackedLinear

CPU = torch.device("cpu")
SMALLER = tuple(PACKINGS)
UNPACKED = tuple(kind for kind, packing in PACKINGS.items() if packing.product is None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


def drawn(rows: int = 48, columns: int = 64, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Weights as a trained layer has them: normal, rows of different size."""
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(rows, 1, generator=generator) * 0.05 + 0.001
    return (torch.randn(rows, columns, generator=generator) * size).to(dtype)


def restored(kind: Storage, weight: torch.Tensor) -> torch.Tensor:
    packed, scale = PACKINGS[kind].pack(weight)
    return PACKINGS[kind].unpack(packed, scale, weight.dtype, (weight.shape[0], weight.shape[1]))


# -------------------------------------------------------------------------------------------------------------- formats


def test_every_way_of_storing_has_a_packing() -> None:
    assert set(SMALLER) == set(get_args(Storage)) - {"full"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", SMALLER)
def test_the_error_is_half_a_step_at_most(kind: Storage, dtype: torch.dtype) -> None:
    """Of 3 bits of mantissa; of 127 steps to the row's largest; of the widest gap between the 16 levels."""
    weight = drawn(dtype=dtype)
    error = (restored(kind, weight) - weight).abs().float()
    largest = weight.abs().amax(1, keepdim=True).float()
    gaps = max(float(b - a) for a, b in pairwise(storage.nf4_levels()))
    bounds = {
        "fp8": weight.abs().float() / 16 + largest / 224 * 2**-10,
        "int8": largest / 254,
        "nf4": largest * gaps / 2,
    }
    bounds["fp8-products"] = bounds["fp8"]
    rounding = 2.0**-8 * weight.abs().float() if dtype == torch.bfloat16 else 1e-7
    assert (error <= bounds[kind] * 1.01 + rounding).all()
    assert error.max() > 0


def test_fp8_rows_are_brought_to_the_top_of_the_range() -> None:
    """What a plain cast loses: these weights are below 2⁻⁶, the smallest normal number of e4m3."""
    weight = drawn() / 10
    packed, scale = PACKINGS["fp8"].pack(weight)
    largest = packed.float().abs().amax(1)
    assert (largest >= 224).all() and (largest <= 448).all()
    assert torch.equal(scale.log2(), scale.log2().round()), "powers of two"
    plain = weight.to(torch.float8_e4m3fn).float()
    assert (restored("fp8", weight) - weight).square().mean() < (plain - weight).square().mean() / 4


def test_the_levels_of_nf4_are_the_published_ones() -> None:
    """Table of Dettmers et al. 2023, appendix E."""
    published = """
        -1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635 -0.18477343022823334
        -0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224
        0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0"""
    assert torch.allclose(storage.nf4_levels(), torch.tensor([*map(float, published.split())]), atol=1e-6)


def test_nf4_takes_the_nearest_level() -> None:
    levels = storage.nf4_levels()
    weight = torch.zeros(1, 64)
    weight[0, :32] = torch.linspace(-2, 2, 32)
    nearest = levels[(weight / 2 - levels[:, None, None]).abs().argmin(0)] * 2
    assert torch.equal(restored("nf4", weight), nearest)


@pytest.mark.parametrize("kind", SMALLER)
def test_rows_of_zeros_stay_zeros(kind: Storage) -> None:
    assert torch.equal(restored(kind, torch.zeros(4, 64)), torch.zeros(4, 64))


# --------------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("kind", UNPACKED)
def test_a_packed_layer_is_the_layer_with_the_restored_weight(kind: Storage) -> None:
    """Output and the input's gradient, to the bit; fewer bytes; nothing to train."""
    plain = nn.Linear(64, 48)
    plain.weight.data = drawn()
    plain.requires_grad_(False)
    packed = nn.Sequential(nn.Linear(64, 48)).requires_grad_(False)
    packed[0].load_state_dict(plain.state_dict())
    storage.store(packed, kind, CPU)
    plain.weight.data = restored(kind, drawn())
    assert isinstance(packed[0], PackedLinear)
    assert not any(parameter.requires_grad for parameter in packed.parameters())
    assert packed[0].weight.nbytes == PACKINGS[kind].bytes_each * 48 * 64
    results = []
    for layer in (plain, packed):
        x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        out = layer(x)
        out.square().sum().backward()
        results.append((out.detach(), x.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(cast(torch.Tensor, ours), cast(torch.Tensor, theirs))


def test_the_unpacked_weight_is_not_kept_for_the_backward() -> None:
    layer = nn.Sequential(nn.Linear(64, 48)).requires_grad_(False)
    storage.store(layer, "fp8", CPU)
    saved: list[torch.dtype] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(torch.zeros(3, 64, requires_grad=True))
    assert saved == [torch.float8_e4m3fn, torch.float32], "the packed weight and its scales"


def test_what_cannot_be_grouped_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Linear(9, 5), nn.Linear(16, 4), nn.LayerNorm(9)).requires_grad_(False)
    storage.store(module, "nf4", CPU)
    assert [type(layer) for layer in module] == [nn.Linear, PackedLinear, nn.LayerNorm]


# ------------------------------------------------------------------------------------------------------ products in fp8


def layers(*kinds: Storage) -> list[nn.Module]:
    """One linear layer, stored in each way."""
    found = []
    for kind in kinds:
        layer = nn.Sequential(nn.Linear(64, 48)).requires_grad_(False)
        layer[0].weight.data = drawn()
        layer[0].bias.data = drawn(1, 48)[0]
        storage.store(layer, kind, CPU)
        found.append(layer[0])
    return found


def tokens(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows of very different size, one of them zero."""
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return (x * torch.tensor([0.0, 1e-3, 1.0, 30.0, 1e4], dtype=dtype)[:, None]).requires_grad_(True)


def test_a_product_in_fp8_is_that_of_the_rounded_numbers() -> None:
    """Against the same sum in float64, the input rounded to 3 bits of mantissa here, a row's largest number at 448."""
    (layer,) = layers("fp8-products")
    assert isinstance(layer, PackedLinear)
    x = tokens().detach()
    each = (x.abs().amax(-1, keepdim=True) / 448).clamp(min=1e-30)
    rounded = (x / each).to(torch.float8_e4m3fn).double() * each
    weight = layer.weight.double() * layer.scale.double()
    expected = rounded @ weight.T + layer.bias.double()
    out = layer(x)
    assert (out.shape, out.dtype) == ((2, 5, 48), torch.float32)
    assert torch.equal(out[:, 0], layer.bias.expand(2, 48)), "a row of zeros"
    size = expected.abs().amax(-1, keepdim=True)
    assert ((out - expected).abs() <= 1e-5 * size).all()
    exact = x.double() @ weight.T + layer.bias.double()
    apart = (exact - expected).norm(dim=-1) / exact.norm(dim=-1)
    assert apart.max() < 0.05 and apart[:, 1:].min() > 1e-4, "inexact, the same for small rows and large ones"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_are_rounded_some_at_a_time(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as all at once, with the input as it was; beside what comes out, one piece in float32, twice."""
    rows = torch.cat([tokens(dtype).detach().view(10, 64)] * 100)
    before = rows.clone()
    each = (rows.abs().amax(1, keepdim=True).float() / 448).clamp(min=torch.finfo(torch.float32).tiny)
    whole = (rows.float() / each).to(torch.float8_e4m3fn)
    for at_once in (64 * 7, 64 * 1000, 1):
        monkeypatch.setattr(storage, "_ROUNDED_AT_ONCE", at_once)
        with Live() as live:
            rounded, scale = storage._rounded(rows)
        assert torch.equal(rounded.view(torch.uint8), whole.view(torch.uint8)) and torch.equal(scale, each)
        piece = min(1000, max(1, at_once // 64)) * 64 * 4
        assert live.peak <= rounded.nbytes + 4 * scale.nbytes + 2 * piece
    assert torch.equal(rows, before)


def test_its_gradient_is_that_of_the_unpacked_weight() -> None:
    gradients = []
    for layer in layers("fp8", "fp8-products"):
        x = tokens()
        layer(x).sum().backward()
        gradients.append(x.grad)
    stored, multiplied = gradients
    assert stored is not None and multiplied is not None
    assert torch.equal(stored, multiplied) and stored.abs().max() > 0


def test_a_step_with_products_in_fp8_is_close_to_one_without(folder: Path) -> None:
    """Recomputed blocks round as the first time; in bfloat16, too."""
    kept, again, stored = (
        executions.training_pass(executions.opened(folder, execution))
        for execution in (
            Execution(base="fp8-products", keep="everything"),
            Execution(base="fp8-products", keep="nothing"),
            Execution(base="fp8", keep="everything"),
        )
    )
    assert executions.same(kept, again)
    assert 0 < abs(kept[0] / stored[0] - 1) < 0.05
    ours, theirs = (torch.cat([one.flatten() for one in found[1].values()]) for found in (kept, stored))
    assert 0 < (ours - theirs).norm() / theirs.norm() < 0.2
    family = executions.opened(folder, Execution(base="fp8-products"), dtype=torch.bfloat16)
    assert executions.training_pass(family)[0].isfinite()


def test_sides_that_the_hardware_cannot_take_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(40, 32), nn.Linear(32, 24), nn.Linear(32, 16)).requires_grad_(False)
    storage.store(module, "fp8-products", CPU)
    assert [type(layer) for layer in module] == [nn.Linear, nn.Linear, PackedLinear]


def test_a_machine_without_such_products_says_so_before_anything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("scaled_mm needs compute capability 9.0\nsecond line")

    monkeypatch.setattr(storage, "scaled_mm", refuse)
    module = nn.Sequential(nn.Linear(16, 16)).requires_grad_(False)
    with pytest.raises(MagicIDError, match="8 bits: scaled_mm needs compute capability 9.0$") as caught:
        storage.store(module, "fp8-products", CPU)
    assert (caught.value.code, caught.value.exit_code) == ("fp8-products", 3) and "--base fp8" in caught.value.hint
    assert type(module[0]) is nn.Linear
    # Before anything is fetched, too: what a stage prepares is its family.
    monkeypatch.setattr(models, "_weights", lambda *_: pytest.fail("fetched"))
    wanted = config.resolve({"model.name": "tiny", "model.device": "cpu", "model.base": "fp8-products"}).settings
    with pytest.raises(MagicIDError, match="8 bits"):
        models.open_family(wanted.model, Events())


def test_memory_that_runs_out_in_the_trial_is_no_word_about_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasLtCreate(&handle)`")

    monkeypatch.setattr(storage, "scaled_mm", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        storage.store(nn.Sequential(nn.Linear(16, 16)).requires_grad_(False), "fp8-products", CPU)


# ----------------------------------------------------------------------------------------------------------- the family


def unpack_all(family: Hunyuan) -> None:
    """Replace every packed layer by a plain one with the restored weight."""
    for layer in family.transformer.modules():
        if isinstance(layer, PackedLinear):
            shape = (layer.out_features, layer.in_features)
            layer.weight = nn.Parameter(
                layer.packing.unpack(layer.weight, layer.scale, family.dtype, shape), requires_grad=False
            )
            setattr(layer, "__class__", nn.Linear)  # noqa: B010 (the checker takes it for a variable)


@pytest.mark.parametrize("kind", UNPACKED)
@pytest.mark.parametrize("keep", ["everything", "attention"])
def test_a_step_on_a_packed_base_is_exact_for_its_weights(folder: Path, kind: Storage, keep: Any) -> None:
    family = executions.opened(folder, Execution(base=kind, keep=keep))
    policy = adapters.parameters(family.transformer, "policy")
    assert {parameter.dtype for parameter in policy.values()} == {torch.float32}
    found = executions.training_pass(family)
    full = executions.training_pass(executions.opened(folder))
    unpack_all(family)
    assert executions.same(executions.training_pass(family), found)
    assert 0 < abs(found[0] / full[0] - 1) < 0.05, "another model, but a close one"


@pytest.mark.parametrize("kind", SMALLER)
def test_adapters_may_be_there_before_the_base_is_packed(folder: Path, kind: Storage) -> None:
    """Either order gives the same step: an adapter is never packed."""
    after = executions.training_pass(executions.opened(folder, Execution(base=kind)))
    family = executions.opened(folder)
    for blocks in (family.transformer.transformer_blocks, family.transformer.single_transformer_blocks):
        storage.store(blocks, kind, CPU)
    assert executions.same(executions.training_pass(family), after)


def test_only_the_blocks_are_packed(folder: Path) -> None:
    family = executions.opened(folder, Execution(base="fp8"))
    packed = {name for name, layer in family.transformer.named_modules() if isinstance(layer, PackedLinear)}
    assert {name.partition(".")[0] for name in packed} == {"transformer_blocks", "single_transformer_blocks"}
    # By hand: a dual block has 8 for attention, 2 x 2 for the two MLPs, 2 for modulation; a single one 3, 2 and 1.
    assert len(packed) == 2 * 14 + 2 * 6
    assert family.transformer.dtype == torch.float32, "what the pipeline takes for the number type of its inputs"


def test_a_packed_base_samples(folder: Path) -> None:
    results = []
    for execution in (Execution(), Execution(base="int8")):
        family = executions.opened(folder, execution)
        shape = executions.SHAPE
        results.append(family.sample(executions.text(), shape, steps=2, guidance=7.5, seed=0))
    assert 0 < (results[0] - results[1]).abs().mean() < 0.05 * results[0].abs().mean()


# --------------------------------------------------------------------------------------------------------- text encoder


def test_the_text_encoders_stay_on_the_cpu_if_told_so(folder: Path) -> None:
    """The family computes on a device that holds no numbers; the texts are those of a family on the CPU."""
    texts = []
    for execution, device in ((Execution(), "cpu"), (replace(Execution(), text_encoder="cpu"), "meta")):
        family = Hunyuan(folder, commit="test", device="cpu", dtype=torch.float32, execution=execution)
        family.device = torch.device(device)
        family.load("text")
        texts.append(family.encode_text("a person walks in the forest"))
    assert texts[0].keys() == texts[1].keys()
    for name, value in texts[0].items():
        assert torch.equal(value, texts[1][name]), name
