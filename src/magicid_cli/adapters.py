"""LoRA adapters on a frozen transformer: attach, switch, save, load. The only user of peft.

Policy and reference of the preference stage are two adapters on one base, so there is no second copy of the weights.
The adapter's weights are float32 whatever the base is. Never switch adapters between a checkpointed forward pass and
its backward pass: the recomputation would run through the other adapter.

An adapter file is safetensors: `<module>.lora_A.weight` (rank, in) and `<module>.lora_B.weight` (out, rank) under the
transformer's own module names; its metadata entry `magicid` holds the `AdapterSpec` and a format number as JSON.
"""

import json
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import atomic_path

FORMAT = 1

# A diffusers model; torch's own `nn.Module` does not know the methods that switch adapters.
Transformer = Any

# Leaf modules by block kind. The MLP is called `ff` beside the attention of a double-stream block, and is two loose
# linear layers in a single-stream block.
_DOUBLE = {
    "attention": "attn.to_q attn.to_k attn.to_v attn.to_out.0 "
    "attn.add_q_proj attn.add_k_proj attn.add_v_proj attn.to_add_out",
    "attention+mlp": "ff.net.0.proj ff.net.2 ff_context.net.0.proj ff_context.net.2",
}
_SINGLE = {"attention": "attn.to_q attn.to_k attn.to_v", "attention+mlp": "proj_mlp proj_out"}


@dataclass(frozen=True)
class AdapterSpec:
    """What an adapter is, besides its numbers.

    Attributes:
        rank: of the update.
        alpha: the update is scaled by `alpha / rank`.
        targets: `attention` or `attention+mlp`.
        double_blocks_only: leave the single-stream blocks alone.
    """

    rank: int
    alpha: float
    targets: str
    double_blocks_only: bool

    @property
    def scale(self) -> float:
        """The factor of `B @ A`."""
        return self.alpha / self.rank

    @property
    def pattern(self) -> str:
        """Regular expression that matches whole module names, in blocks only: never the token refiner."""
        kinds = [("transformer_blocks", _DOUBLE)]
        if not self.double_blocks_only:
            kinds.append(("single_transformer_blocks", _SINGLE))
        return "|".join(rf"{blocks}\.\d+\.(?:{self._leaves(leaves)})" for blocks, leaves in kinds)

    def _leaves(self, table: dict[str, str]) -> str:
        names = table["attention"] if self.targets == "attention" else " ".join(table.values())
        return "|".join(name.replace(".", r"\.") for name in names.split())


def attach(transformer: Transformer, name: str, spec: AdapterSpec, *, seed: int) -> None:
    """Add an adapter that changes nothing yet, and make it the active one, not trainable.

    A is drawn from `seed` alone (uniform in ±1/√in, LoRA's usual draw), B is zero. The base is frozen.

    Args:
        transformer: the denoiser.
        name: of the adapter, e.g. `policy`.
        spec: rank, alpha, targets.
        seed: of A's numbers; the same on every device and for every number type of the base.
    """
    transformer.requires_grad_(False)
    # peft fills new layers with numbers of its own from the global generator.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Two adapters on one base are meant.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        transformer.add_adapter(_config(spec), adapter_name=name)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in parameters(transformer, name).items():
        bound = 1 / math.sqrt(parameter.shape[1]) if ".lora_A." in key else 0.0
        values = torch.rand(parameter.shape, generator=generator) * (2 * bound) - bound
        parameter.data = values.to(parameter.device)
    select(transformer, name, trainable=False)


def _config(spec: AdapterSpec) -> LoraConfig:
    return LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, target_modules=spec.pattern, lora_dropout=0.0, init_lora_weights=False
    )


def peft_config(spec: AdapterSpec) -> dict[str, Any]:
    """The adapter's configuration as peft writes it: the header of an exported file."""
    return {name: value for name, value in _config(spec).to_dict().items() if name != "init_lora_weights"}


def fuse(transformer: Any, name: str) -> None:
    """Add the adapter's update to the base's weights for good, and take all adapters off."""
    transformer.fuse_lora(adapter_names=[name])
    transformer.unload_lora()


def select(transformer: Transformer, name: str | None, *, trainable: bool = False) -> None:
    """Make `name` the one adapter that takes part in a forward pass; None switches all off (the bare base).

    Args:
        transformer: the denoiser.
        name: an attached adapter, or None.
        trainable: whether its parameters, and no others, require gradients.
    """
    if name is None:
        if _names(transformer):
            transformer.disable_adapters()
    else:
        transformer.enable_adapters()
        transformer.set_adapter(name)
    # Switching makes the chosen adapter trainable again, even one that was frozen.
    transformer.requires_grad_(False)
    if name is not None and trainable:
        for parameter in parameters(transformer, name).values():
            parameter.requires_grad_(True)


def parameters(transformer: Transformer, name: str) -> dict[str, nn.Parameter]:
    """The adapter's own parameters, by their key in an adapter file, sorted.

    Raises:
        KeyError: no adapter of that name is attached.
    """
    middle, found = f".{name}.", {}
    for key, parameter in transformer.named_parameters():
        if ".lora_" in key and middle in key:
            found[key.replace(middle, ".")] = parameter
    if not found:
        raise KeyError(f"no adapter '{name}'; attached: {', '.join(_names(transformer)) or 'none'}")
    return dict(sorted(found.items()))


def tensors(transformer: Transformer, name: str) -> dict[str, torch.Tensor]:
    """Copies of the adapter's weights, float32 on the CPU, by key."""
    return {
        key: parameter.detach().to("cpu", torch.float32, copy=True)
        for key, parameter in parameters(transformer, name).items()
    }


def load_tensors(transformer: Transformer, name: str, values: dict[str, torch.Tensor]) -> None:
    """Overwrite an attached adapter's weights in place, all of them or none.

    Raises:
        MagicIDError: `adapter-mismatch` if keys or shapes are others than the adapter's, or a number is not finite.
    """
    own = parameters(transformer, name)
    if problem := _mismatch(own, values):
        raise MagicIDError(
            "adapter-mismatch",
            f"These adapter weights do not fit the model: {problem}.",
            "Use the model and the adapter settings (rank, targets) that they were trained with.",
        )
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(values[key])


def _mismatch(own: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> str | None:
    if missing := sorted(own.keys() - values.keys()):
        return f"{len(missing)} of {len(own)} tensors are missing, the first is {missing[0]}"
    if foreign := sorted(values.keys() - own.keys()):
        return f"{len(foreign)} tensors have no place in it, the first is {foreign[0]}"
    for key, parameter in own.items():
        if values[key].shape != parameter.shape:
            return f"{key} is {tuple(values[key].shape)}, {tuple(parameter.shape)} is expected"
        if not torch.isfinite(values[key]).all():
            return f"{key} holds a number that is not finite"
    return None


def save(path: Path, values: dict[str, torch.Tensor], spec: AdapterSpec) -> None:
    """Write an adapter file, whole or not at all; the same adapter gives the same bytes."""
    about = json.dumps({"format": FORMAT, **asdict(spec)}, sort_keys=True)
    plain = {key: value.detach().to("cpu", torch.float32).contiguous() for key, value in sorted(values.items())}
    # Serialised here: the library's own file writer does not report a full disk as an OSError.
    content = serialise(plain, metadata={"magicid": about})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load(path: Path) -> tuple[dict[str, torch.Tensor], AdapterSpec]:
    """Read an adapter file.

    Returns:
        Its tensors (float32, CPU) and what it is.

    Raises:
        MagicIDError: `adapter-unreadable` if it is missing, damaged, or not an adapter file of this format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            spec = _spec(json.loads((file.metadata() or {})["magicid"]))
            return {key: file.get_tensor(key) for key in sorted(file.keys())}, spec
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MagicIDError(
            "adapter-unreadable",
            f"{path} is no adapter file that this version can read: {error}.",
            "Run the same `magicid customize` again: it makes what is missing.",
        ) from error


def _spec(about: dict[str, Any]) -> AdapterSpec:
    if about.pop("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    return AdapterSpec(**about)


def is_attached(transformer: Transformer, name: str) -> bool:
    """Whether the transformer has an adapter of that name, on or off."""
    return name in _names(transformer)


def _names(transformer: Transformer) -> list[str]:
    return sorted(getattr(transformer, "peft_config", {}))
