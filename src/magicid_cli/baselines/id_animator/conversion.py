"""ID-Animator's `animator.ckpt` → an IP-Adapter-Plus that diffusers loads, and a LoRA folded into the cross-attention.

The checkpoint, as its authors' `faceadapter/face_adapter.py` writes and reads it (github.com/ID-Animator/ID-Animator,
commit 4f5a277575cc7b2be9eb55a8e03a97f6a85ed435), is one state dict, perhaps below the key `state_dict` and perhaps with
`module.` before every name; or two of them, below `image_proj` and `face_adapter`, whose names lack the first part.
Flat it is

    image_proj_model.<…>                            the resampler: CLIP hidden states → 16 face tokens
    adapter_modules.<n>.to_{q,k,v,out}_lora.{down,up}.weight    a LoRA of rank 128 on a cross-attention, scale 1
    adapter_modules.<n>.to_{k,v}_face.weight        keys and values of the face tokens

`n` numbers every attention of the image UNet, self- and cross-attention in turn, in the order down, up, middle: the
cross-attentions are 1, 3, …, 31. The motion module's attentions have no number there.

Cross-attention with the adapter is, for queries `h`, text `c` and face tokens `f`,

    q = (Wq + Uq Dq) h
    out = (Wo + Uo Do) (softmax(q (Wk + Uk Dk) c) (Wv + Uv Dv) c + scale · softmax(q Kf f) Vf f) + bo

which is IP-Adapter's with each `W + U D` in the place of `W`. A test holds this against the formula itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from magicid_cli.events import Events
from magicid_cli.models.loading import reading

State = dict[str, torch.Tensor]

_LORA = {"to_q": "to_q_lora", "to_k": "to_k_lora", "to_v": "to_v_lora", "to_out.0": "to_out_lora"}
_FACE = {"to_k_ip": "to_k_face", "to_v_ip": "to_v_face"}
# The two tables of the nested layout, and what the names in them lack.
_NESTED = {"image_proj": "image_proj_model.", "face_adapter": "adapter_modules."}
_NAMED = 8  # of the tensors that are left out
_ZIP = b"PK\x03\x04"
_ORDER = ("down_blocks", "up_blocks", "mid_block")


@dataclass(frozen=True)
class FaceAdapter:
    """The checkpoint, in the words of diffusers.

    Attributes:
        resampler: the weights of its image projection.
        attention: keys and values of the face tokens, numbered as diffusers numbers them.
        folded: what is added to the UNet's own weights, by their names.
    """

    resampler: State
    attention: State
    folded: State

    @property
    def tokens(self) -> int:
        """How many face tokens there are."""
        return int(self.resampler["latents"].shape[1])

    @property
    def image_width(self) -> int:
        """Width of the hidden states that the resampler reads."""
        return int(self.resampler["proj_in.weight"].shape[1])


def read(path: Path, events: Events) -> State:
    """The tensors of a checkpoint, by the names of its flat layout without `module.`; nothing in the file is run.

    Args:
        path: the file.
        events: hears if it is of torch's old layout, which cannot be mapped and so is read whole.

    Raises:
        MagicIDError: `model-unusable` for a file that is damaged or holds anything but tensors.
    """
    with reading(path.parent, path.name):
        with path.open("rb") as file:
            mapped = file.read(len(_ZIP)) == _ZIP
        if not mapped:
            size = f"{path.stat().st_size / 1e9:.2g} GB of memory for a while"
            events.notice(f"{path.name} is of torch's old layout, so it is read whole: {size}.")
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except torch.serialization.pickle.UnpicklingError as error:
            raise ValueError(f"it holds something else than tensors ({error})") from error
        found = _table(found, "the file")
        if "state_dict" in found:
            found = _table(found["state_dict"], "state_dict")
        if found.keys() == _NESTED.keys():
            parts = {key: _table(found[key], key) for key in _NESTED}
            found = {_NESTED[key] + name: value for key, part in parts.items() for name, value in part.items()}
        wrong = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
        if wrong:
            raise TypeError(f"{wrong[0]} is no tensor")
        return {name.removeprefix("module."): value for name, value in found.items()}


def _table(found: Any, what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TypeError(f"{what} is no table of tensors")
    return found


def cross_attentions(unet: Any) -> list[str]:
    """The cross-attentions of the image UNet inside a `UNetMotionModel`, in the order of the checkpoint's numbers.

    Raises:
        ValueError: diffusers numbers them in another order, so its numbers would mean other layers.
    """
    ours = [name for name in unet.attn_processors if name.startswith(_ORDER)]  # the resampler has attentions, too
    processors = [name for name in ours if "motion_modules" not in name]
    names = [name.removesuffix(".processor") for name in processors if name.endswith("attn2.processor")]
    ordered = sorted(names, key=lambda name: _ORDER.index(name.partition(".")[0]))
    if names != ordered or len(processors) != 2 * len(names):
        raise ValueError("this version of diffusers orders the UNet's attentions in another way")
    return names


def convert(state: State, unet: Any, source: Path, events: Events) -> FaceAdapter:
    """The face adapter for a UNet. A tensor that has no place there is named and left out.

    Args:
        state: see `read`.
        unet: a `UNetMotionModel`.
        source: the checkpoint's file, for messages.
        events: hears of tensors that are left out; the authors' loader leaves them out in silence.

    Raises:
        MagicIDError: `model-unusable` if tensors are missing or of another shape.
    """
    with reading(source.parent, source.name):
        left = dict(state)
        attention, folded = {}, {}
        weights = dict(unet.named_parameters())
        for index, name in enumerate(cross_attentions(unet)):
            number = 2 * index + 1
            prefix = f"adapter_modules.{number}."
            for target, lora in _LORA.items():
                up, down = (left.pop(f"{prefix}{lora}.{part}.weight") for part in ("up", "down"))
                change = up.float() @ down.float()
                folded[f"{name}.{target}.weight"] = _fitting(change, weights[f"{name}.{target}.weight"], prefix + lora)
            for target, face in _FACE.items():
                value = left.pop(f"{prefix}{face}.weight")
                _fitting(value, weights[f"{name}.{target[:4]}.weight"], prefix + face)
                attention[f"{number}.{target}.weight"] = value.float()
        stem = "image_proj_model."
        resampler = {key.removeprefix(stem): left.pop(key).float() for key in list(left) if key.startswith(stem)}
        if left:
            named = ", ".join(list(left)[:_NAMED]) + (", …" if len(left) > _NAMED else "")
            events.notice(f"{source.name} has tensors that have no place in the model and are left out: {named}.")
        adapter = FaceAdapter(resampler, attention, folded)
        if not adapter.tokens or not adapter.image_width:
            raise ValueError("its resampler is empty")
        return adapter


def _fitting(value: torch.Tensor, like: torch.Tensor, name: str) -> torch.Tensor:
    if value.shape != like.shape:
        raise ValueError(f"{name} is {tuple(value.shape)}, {tuple(like.shape)} is expected")
    return value


@torch.no_grad()
def put_on(unet: Any, adapter: FaceAdapter, scale: float) -> None:
    """Fold the LoRA into the UNet and give it the face tokens' attention, at a weight.

    What diffusers' own loader does from a file, from tensors: it would also build an image processor, which needs
    torchvision.
    """
    weights = dict(unet.named_parameters())
    for name, change in adapter.folded.items():
        weights[name] += change.to(weights[name].dtype)
    state = {"image_proj": adapter.resampler, "ip_adapter": adapter.attention}
    unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    for name in cross_attentions(unet):
        unet.get_submodule(name).processor.scale = [scale]
