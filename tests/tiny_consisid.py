"""ConsisID's repository at tiny size, in the real one's layout, and a stand-in for the other environment's packages.

The stand-in is a wheel that pip installs: a path file that leads to packages named as the real ones, with the functions
that `other_side.py` calls, and to this environment's own packages.
"""

import base64
import hashlib
import sysconfig
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, ConsisIDTransformer3DModel
from transformers import T5Config, T5EncoderModel

REPO = "BestWishYsh/ConsisID-preview"
TEXT, TOKENS, WORDS = 16, 8, 32
ID, VIT, STATES = 12, 16, 2  # widths of the face's embedding and of CLIP's states, and how many of those there are


def transformer() -> Any:
    return ConsisIDTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=TEXT,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=TOKENS,
        use_rotary_positional_embeddings=True,
        is_train_face=True,
        is_kps=True,
        cross_attn_interval=1,
        cross_attn_dim_head=16,
        cross_attn_num_heads=2,
        LFE_id_dim=ID,
        LFE_vit_dim=VIT,
        LFE_depth=STATES,
        LFE_dim_head=8,
        LFE_num_heads=2,
        LFE_num_id_token=3,
        LFE_num_querie=2,
        LFE_output_dim=21,
        LFE_ff_mult=1,
        LFE_num_scale=STATES,
    )


def write(folder: Path) -> Path:
    """The repository, in a new folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        transformer().save_pretrained(folder / "transformer")
        AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ).save_pretrained(folder / "vae")
        config = T5Config(vocab_size=WORDS, d_model=TEXT, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
        T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    CogVideoXDPMScheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "ConsisIDPipeline"}', encoding="utf-8")
    for name, content in {
        "tokenizer/spiece.model": b"a SentencePiece model",
        "tokenizer/tokenizer_config.json": b"{}",
        "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt": b"pickled",
        "face_encoder/detection_Resnet50_Final.pth": b"pickled",
        "face_encoder/models/antelopev2/glintr100.onnx": b"a network",
        "face_encoder/run_me.py": b"raise SystemExit",
        "data_process/other.pt": b"not wanted",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def face(brightness: float) -> dict[str, torch.Tensor]:
    """A prepared face, as the other side answers."""
    generator = torch.Generator().manual_seed(6)
    states = {f"id_vit_hidden.{n}": torch.randn(1, 5, VIT, generator=generator) for n in range(STATES)}
    picture = torch.full((64, 64, 3), int(255 * brightness), dtype=torch.uint8)
    points = torch.tensor([[20.0, 25], [40, 25], [30, 35], [22, 45], [38, 45]])
    return {"id_cond": torch.randn(1, ID, generator=generator), "picture": picture, "keypoints": points, **states}


_UTILS = f'''
import numpy as np, torch
from PIL import Image
from pathlib import Path

def prepare_face_models(weights, device, dtype):
    """Six things, as the real one; every file of the encoders must be where it looks for them."""
    found = (path for path in Path(weights, "face_encoder").rglob("*") if path.is_file())
    names = sorted(str(path.relative_to(weights)) for path in found)
    print("loading", *names)
    assert len(names) == 3, names
    return 1, 2, 3, 4, 5, 6

def process_face_embeddings_infer(one, clip, two, mean, deviation, app, device, dtype, photo, is_align_face):
    assert (one, clip, two, mean, deviation, app) == (1, 3, 2, 5, 6, 4) and is_align_face
    picture = Image.open(photo).convert("RGB")
    if np.asarray(picture).mean() < 1:
        raise RuntimeError("facexlib align face fail")
    generator = torch.Generator().manual_seed(7)
    states = [torch.randn(1, 5, {VIT}, generator=generator) for _ in range({STATES})]
    points = np.array([[20.0, 25], [40, 25], [30, 35], [22, 45], [38, 45]])
    return torch.randn(1, {ID}, generator=generator), states, picture.resize((64, 64)), points
'''
_TOKENIZER = f"""
class T5Tokenizer:
    @classmethod
    def from_pretrained(cls, folder, local_files_only):
        assert (folder / "spiece.model").read_bytes() == b"a SentencePiece model" and local_files_only
        return cls()

    def __call__(self, texts, padding=None, max_length=None, truncation=False):
        many = [texts] if isinstance(texts, str) else texts
        rows = [[2 + len(word) % {WORDS - 2} for word in text.split()] + [1] for text in many]
        if max_length:
            rows = [(row[:max_length] + [0] * max_length)[:max_length] for row in rows]
        ids = rows[0] if isinstance(texts, str) else rows
        return type("Encoded", (), {{"input_ids": ids}})
"""


def wheels(folder: Path) -> Path:
    """A folder with the stand-in's wheel, `face-stand-in` 1.0."""
    packages = folder / "packages"
    for name, content in {
        "diffusers/__init__.py": "",
        "diffusers/pipelines/__init__.py": "",
        "diffusers/pipelines/consisid/__init__.py": "",
        "diffusers/pipelines/consisid/consisid_utils.py": textwrap.dedent(_UTILS),
        "transformers/__init__.py": textwrap.dedent(_TOKENIZER),
    }.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(content, encoding="utf-8")
    information = "face_stand_in-1.0.dist-info"
    files = {
        "face_stand_in.pth": f"{packages}\n{sysconfig.get_path('purelib')}\n",
        f"{information}/METADATA": "Metadata-Version: 2.1\nName: face-stand-in\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},sha256={_sha256(text)},{len(text.encode())}" for name, text in files.items()]
    files[f"{information}/RECORD"] = "\n".join([*rows, f"{information}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(folder / "face_stand_in-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return folder


def _sha256(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
