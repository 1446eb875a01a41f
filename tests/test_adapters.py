"""Adapters, against the clean base model, hand-made LoRA arithmetic, and each other."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from magicid_cli import adapters
from magicid_cli.adapters import AdapterSpec
from magicid_cli.errors import MagicIDError
from magicid_cli.models import tiny

SPEC = AdapterSpec(rank=4, alpha=8.0, targets="attention+mlp", double_blocks_only=False)
DOUBLE_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
DOUBLE_MLP = ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def base(folder: Path) -> Any:
    return HunyuanVideoTransformer3DModel.from_pretrained(folder, subfolder="transformer")


def predict(transformer: Any) -> torch.Tensor:
    """One fixed forward pass."""
    generator = torch.Generator().manual_seed(1)
    dtype = transformer.dtype
    return transformer(
        hidden_states=torch.randn(1, 16, 3, 8, 8, generator=generator).to(dtype),
        timestep=torch.tensor([500.0]),
        encoder_hidden_states=torch.randn(1, 7, tiny.WIDTH, generator=generator).to(dtype),
        encoder_attention_mask=torch.ones(1, 7, dtype=dtype),
        pooled_projections=torch.randn(1, tiny.POOLED_WIDTH, generator=generator).to(dtype),
        guidance=torch.tensor([1000.0], dtype=dtype),
        return_dict=False,
    )[0]


def fill(transformer: Any, name: str, seed: int) -> dict[str, torch.Tensor]:
    """Give an adapter numbers that have an effect."""
    generator = torch.Generator().manual_seed(seed)
    values = {
        key: torch.randn(parameter.shape, generator=generator) / 4
        for key, parameter in adapters.parameters(transformer, name).items()
    }
    adapters.load_tensors(transformer, name, values)
    return values


def fingerprint(transformer: Any, name: str) -> str:
    data = b"".join(value.numpy().tobytes() for value in adapters.tensors(transformer, name).values())
    return hashlib.sha256(data).hexdigest()


def trainable(transformer: Any) -> set[str]:
    return {name for name, parameter in transformer.named_parameters() if parameter.requires_grad}


def test_targets_are_the_block_modules_and_nothing_else(base: Any) -> None:
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    double = {f"transformer_blocks.{i}.attn.{leaf}" for i in range(2) for leaf in DOUBLE_ATTENTION}
    double_mlp = {f"transformer_blocks.{i}.{leaf}" for i in range(2) for leaf in DOUBLE_MLP}
    single = {f"single_transformer_blocks.{i}.attn.{leaf}" for i in range(2) for leaf in ("to_q", "to_k", "to_v")}
    single_mlp = {f"single_transformer_blocks.{i}.{leaf}" for i in range(2) for leaf in ("proj_mlp", "proj_out")}
    expected = {
        ("attention", False): double | single,
        ("attention", True): double,
        ("attention+mlp", False): double | double_mlp | single | single_mlp,
        ("attention+mlp", True): double | double_mlp,
    }
    for (targets, double_only), modules in expected.items():
        spec = replace(SPEC, targets=targets, double_blocks_only=double_only)
        assert {name for name in linear if re.fullmatch(spec.pattern, name)} == modules
    assert any("token_refiner" in name for name in linear), "the trap is there"
    adapters.attach(base, "policy", SPEC, seed=0)
    keys = adapters.parameters(base, "policy")
    assert {key.rsplit(".lora_", 1)[0] for key in keys} == expected["attention+mlp", False]


def test_a_new_adapter_changes_nothing_and_comes_from_its_seed_alone(base: Any, folder: Path) -> None:
    clean = predict(base)
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    adapters.attach(base, "policy", SPEC, seed=3)
    assert torch.rand(1) == expected, "the global random state was used"
    assert torch.equal(predict(base), clean)
    assert trainable(base) == set()
    other = HunyuanVideoTransformer3DModel.from_pretrained(folder, subfolder="transformer", dtype=torch.bfloat16)
    adapters.attach(other, "another-name", SPEC, seed=3)
    for key, value in adapters.tensors(base, "policy").items():
        assert torch.equal(value, adapters.tensors(other, "another-name")[key])
        assert (value == 0).all() if ".lora_B." in key else value.abs().max() <= value.shape[1] ** -0.5
    adapters.attach(base, "second", SPEC, seed=4)
    assert fingerprint(base, "second") != fingerprint(base, "policy")


def test_the_update_is_alpha_over_rank_times_b_a(base: Any, folder: Path) -> None:
    """Against a clean model into whose weights the product was added by hand."""
    adapters.attach(base, "policy", SPEC, seed=0)
    values = fill(base, "policy", 1)
    by_hand = HunyuanVideoTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    untouched = predict(by_hand)
    for key in values:
        if key.endswith(".lora_A.weight"):
            module = key.removesuffix(".lora_A.weight")
            update = 8.0 / 4 * values[f"{module}.lora_B.weight"] @ values[key]
            by_hand.get_submodule(module).weight.data += update
    assert (predict(base) - predict(by_hand)).abs().max() < 1e-4
    assert (predict(base) - untouched).abs().max() > 0.1


def test_fusing_keeps_the_effect_and_leaves_a_clean_model(base: Any) -> None:
    names = {name for name, _ in base.named_parameters()}
    adapters.attach(base, "policy", SPEC, seed=0)
    fill(base, "policy", 1)
    adapted = predict(base)
    adapters.fuse(base, "policy")
    assert {name for name, _ in base.named_parameters()} == names
    assert (predict(base) - adapted).abs().max() < 1e-4


def test_switching(base: Any) -> None:
    clean = predict(base)
    for name in ("reference", "policy"):
        adapters.attach(base, name, SPEC, seed=0)
    fill(base, "reference", 1)
    adapters.load_tensors(base, "policy", adapters.tensors(base, "reference"))
    adapters.select(base, "reference", trainable=False)
    reference = predict(base)
    adapters.select(base, "policy", trainable=True)
    assert torch.equal(predict(base), reference), "policy starts as a copy of the reference"
    fill(base, "policy", 2)
    policy = predict(base)
    for chosen, expected in [("reference", reference), (None, clean), ("policy", policy), (None, clean)] * 2:
        adapters.select(base, chosen, trainable=False)
        assert torch.equal(predict(base), expected)


def test_only_the_chosen_adapter_is_trainable(base: Any) -> None:
    for name in ("reference", "policy"):
        adapters.attach(base, name, SPEC, seed=0)
    of_policy = {name for name, _ in base.named_parameters() if ".policy." in name}
    assert len(of_policy) == 68
    adapters.select(base, "policy", trainable=True)
    assert trainable(base) == of_policy
    adapters.select(base, "reference", trainable=False)
    assert trainable(base) == set()
    adapters.select(base, "policy", trainable=True)
    assert trainable(base) == of_policy
    adapters.select(base, None)
    assert trainable(base) == set()
    adapters.select(base, "reference", trainable=True)
    assert trainable(base) == {name for name, _ in base.named_parameters() if ".reference." in name}


def test_the_base_without_adapters_may_be_selected(base: Any) -> None:
    clean = predict(base)
    adapters.select(base, None)
    assert torch.equal(predict(base), clean)
    assert trainable(base) == set()


def test_training_the_policy_leaves_reference_and_base_alone(base: Any) -> None:
    clean = predict(base).detach()
    for name in ("reference", "policy"):
        adapters.attach(base, name, SPEC, seed=0)
        fill(base, name, 1)
    before = fingerprint(base, "reference")
    adapters.select(base, "policy", trainable=True)
    own = adapters.parameters(base, "policy")
    # Also through an optimizer that was given everything.
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-2)
    for _ in range(3):
        adapters.select(base, "reference", trainable=False)
        with torch.no_grad():
            target = predict(base)
        adapters.select(base, "policy", trainable=True)
        (predict(base) - target - 1).square().mean().backward()
        assert all(parameter.grad is not None for parameter in own.values())
        optimizer.step()
        optimizer.zero_grad()
    assert fingerprint(base, "reference") == before
    assert fingerprint(base, "policy") != before
    adapters.select(base, None)
    assert torch.equal(predict(base), clean)


def test_float32_adapter_over_bfloat16_base(folder: Path) -> None:
    base = HunyuanVideoTransformer3DModel.from_pretrained(folder, subfolder="transformer", dtype=torch.bfloat16)
    clean = predict(base)
    adapters.attach(base, "policy", SPEC, seed=0)
    assert base.dtype == torch.bfloat16, "diffusers reads the number type off the first parameter"
    assert torch.equal(predict(base), clean)
    fill(base, "policy", 1)
    adapters.select(base, "policy", trainable=True)
    output = predict(base)
    assert output.dtype == torch.bfloat16
    assert not torch.equal(output, clean)
    output.float().square().mean().backward()
    for parameter in adapters.parameters(base, "policy").values():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


def test_parameters_stay_the_same_objects(base: Any) -> None:
    """An optimizer holds them: loading and switching must not replace them."""
    adapters.attach(base, "policy", SPEC, seed=0)
    before = {key: id(parameter) for key, parameter in adapters.parameters(base, "policy").items()}
    adapters.attach(base, "reference", SPEC, seed=1)
    fill(base, "policy", 2)
    adapters.select(base, "reference", trainable=False)
    adapters.select(base, "policy", trainable=True)
    assert {key: id(parameter) for key, parameter in adapters.parameters(base, "policy").items()} == before


def test_tensors_are_copies(base: Any) -> None:
    adapters.attach(base, "policy", SPEC, seed=0)
    fill(base, "policy", 1)
    before = fingerprint(base, "policy")
    for value in adapters.tensors(base, "policy").values():
        value.zero_()
    assert fingerprint(base, "policy") == before


def test_an_unknown_adapter(base: Any) -> None:
    adapters.attach(base, "policy", SPEC, seed=0)
    with pytest.raises(KeyError, match="attached: policy"):
        adapters.parameters(base, "reference")


@pytest.mark.parametrize("damage", ["missing", "foreign", "shape", "nan", "inf"])
def test_weights_that_do_not_fit_are_refused_and_nothing_changes(base: Any, damage: str) -> None:
    adapters.attach(base, "policy", SPEC, seed=0)
    before = fingerprint(base, "policy")
    values = {key: torch.ones_like(value) for key, value in adapters.tensors(base, "policy").items()}
    last = sorted(values)[-1]
    if damage == "missing":
        del values[last]
    elif damage == "foreign":
        values["context_embedder.token_refiner.lora_A.weight"] = torch.ones(4, 4)
    elif damage == "shape":
        values[last] = values[last][:, :2]
    else:
        values[last][0, 0] = float(damage)
    with pytest.raises(MagicIDError) as caught:
        adapters.load_tensors(base, "policy", values)
    assert caught.value.code == "adapter-mismatch"
    assert ("token_refiner" if damage == "foreign" else last) in caught.value.message
    assert fingerprint(base, "policy") == before


def test_a_file_brings_back_numbers_and_spec(base: Any, tmp_path: Path) -> None:
    spec = AdapterSpec(rank=4, alpha=2.5, targets="attention", double_blocks_only=True)
    adapters.attach(base, "policy", spec, seed=0)
    values = fill(base, "policy", 1)
    path, again = tmp_path / "adapter.safetensors", tmp_path / "again.safetensors"
    adapters.save(path, values, spec)
    adapters.save(again, dict(reversed(values.items())), spec)
    assert path.read_bytes() == again.read_bytes()
    loaded, found = adapters.load(path)
    assert found == spec
    assert loaded.keys() == values.keys()
    assert all(torch.equal(loaded[key], values[key]) for key in values)
    assert all(re.fullmatch(r"transformer_blocks\.\d\.attn\..+\.lora_[AB]\.weight", key) for key in loaded)
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        "adapter.safetensors",
        "again.safetensors",
    ]


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign", "future"])
def test_a_file_that_is_no_adapter(base: Any, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "adapter.safetensors"
    if damage in ("truncated", "future"):
        monkeypatch.setattr(adapters, "FORMAT", 2 if damage == "future" else 1)
        adapters.save(path, {"a.lora_A.weight": torch.ones(4, 4)}, SPEC)
        monkeypatch.undo()
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "empty":
        path.touch()
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"x": torch.ones(1)}, path)
    with pytest.raises(MagicIDError) as caught:
        adapters.load(path)
    assert caught.value.code == "adapter-unreadable"
    assert str(path) in caught.value.message
