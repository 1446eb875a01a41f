"""Facts about the weights that magicid knows by name: where they are, what they weigh, who may use them.

No settings here: a shape or a dose is a setting (`config/settings.py`).
"""

from dataclasses import dataclass

from magicid_cli.errors import MagicIDError

HUNYUAN_LICENCE = (
    "Tencent Hunyuan Community License: it does not apply in the European Union, the United Kingdom and South Korea, "
    "and has an acceptable-use policy"
)


@dataclass(frozen=True)
class Source:
    """Files on the Hub.

    Attributes:
        repo: `owner/name`, or `spaces/owner/name` for the files of a demo.
        revision: a commit (40 hex digits) where one is known, else a branch; the resolved commit is recorded.
        licence: name and, where it matters, the clause a user must know.
        gigabytes: about what is downloaded, in units of 1e9 bytes; the plan shows it as an estimate.
        commercial: whether the licence allows commercial use.
        pickled: patterns of files of formats that can hold code and are fetched all the same, because what reads them
            builds tensors alone (`torch.load(weights_only=True)`) or is a process of its own.
    """

    repo: str
    revision: str
    licence: str
    gigabytes: float
    commercial: bool = True
    pickled: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoModel:
    """A text-to-video model.

    Attributes:
        name: what the user types.
        family: the module of `models/` that runs it.
        source: its Hub repository, or None for weights that come with magicid or are built on this machine.
        parameters: of the transformer.
        needs_gpu: whether running it on a CPU must be asked for by name.
        face_detector: what `--face-detector auto` means.
        face_model: what `--face-model auto` means.
        evaluation_face_model: the recogniser that judges results, which no reward ever saw; never `face_model`.
        vlm: what `--vlm auto` means.
        evaluation_clip: what `--clip auto` means.
        evaluation_features: what `--fvd-features auto` means.
        packaged: the folder inside the package that holds its weights, or "" for weights that are fetched or built.
        drawn: whether it knows the drawn world alone: its prompts and captions come from that world's grammar.
    """

    name: str
    family: str
    source: Source | None
    parameters: int
    needs_gpu: bool
    face_detector: str
    face_model: str
    evaluation_face_model: str
    vlm: str
    evaluation_clip: str
    evaluation_features: str
    packaged: str = ""
    drawn: bool = False


@dataclass(frozen=True)
class FaceModel:
    """An ONNX file that finds or recognises faces.

    Attributes:
        name: what the user types.
        source: its Hub repository.
        file: the file in that repository.
        kind: `yunet`, `sface` (raw 0-255 RGB) or `arcface` ((x - 127.5) / 127.5, RGB).
    """

    name: str
    source: Source
    file: str
    kind: str


@dataclass(frozen=True)
class Judge:
    """A model that scores prompt following.

    Attributes:
        name: what the user types.
        source: its Hub repository.
        kind: `qwen3-vl`, which also writes captions and prompts, or `clip`.
        files: patterns of what it needs of the repository.
    """

    name: str
    source: Source
    kind: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class FeatureModel:
    """A network whose features of videos the evaluation compares.

    Attributes:
        name: what the user types.
        source: its Hub repository.
        file: the file in that repository: TorchScript (`.pt`) or safetensors.
    """

    name: str
    source: Source
    file: str


@dataclass(frozen=True)
class MethodWeights:
    """Weights that another method brings along.

    Attributes:
        what: their role, for people.
        source: their Hub repository.
        files: patterns of what is needed of it.
    """

    what: str
    source: Source
    files: tuple[str, ...]


VIDEO_MODELS: dict[str, VideoModel] = {
    model.name: model
    for model in (
        VideoModel(
            name="hunyuan-video",
            family="hunyuan",
            source=Source(
                repo="hunyuanvideo-community/HunyuanVideo",
                revision="e8c2aaa66fe3742a32c11a6766aecbf07c56e773",
                licence=HUNYUAN_LICENCE,
                gigabytes=41.9,
            ),
            parameters=12_821_012_544,
            needs_gpu=True,
            face_detector="yunet",
            face_model="sface",
            evaluation_face_model="auraface",
            vlm="qwen3-vl-4b",
            evaluation_clip="clip-vit-b-32",
            evaluation_features="i3d",
        ),
        VideoModel(
            name="mini",
            family="hunyuan",
            source=None,
            parameters=5_912_128,
            needs_gpu=False,
            face_detector="drawn",
            face_model="drawn",
            evaluation_face_model="drawn-judge",
            vlm="drawn",
            evaluation_clip="drawn",
            evaluation_features="drawn",
            packaged="world/weights/hunyuan-mini",
            drawn=True,
        ),
        VideoModel(
            name="tiny",
            family="hunyuan",
            source=None,
            parameters=160_992,
            needs_gpu=False,
            face_detector="stand-in",
            face_model="stand-in",
            evaluation_face_model="stand-in-judge",
            vlm="stand-in",
            evaluation_clip="stand-in",
            evaluation_features="stand-in",
        ),
    )
}

# Of the `tiny` model: no claim about faces.
STAND_INS = ("stand-in", "stand-in-judge")

# The drawn world's face finder, face recognisers and judge of prompts, whose weights come with magicid.
DRAWN = ("drawn", "drawn-judge")

FACE_MODELS: dict[str, FaceModel] = {
    model.name: model
    for model in (
        FaceModel(
            "yunet",
            Source("opencv/face_detection_yunet", "main", "MIT", 0.0003),
            "face_detection_yunet_2023mar.onnx",
            "yunet",
        ),
        FaceModel(
            "sface",
            Source("opencv/face_recognition_sface", "main", "Apache-2.0", 0.0387),
            "face_recognition_sface_2021dec.onnx",
            "sface",
        ),
        FaceModel("auraface", Source("fal/AuraFace-v1", "main", "Apache-2.0", 0.261), "glintr100.onnx", "arcface"),
        FaceModel(
            "antelopev2",
            Source(
                "DIAMONIK7777/antelopev2", "main", "InsightFace: non-commercial research only", 0.261, commercial=False
            ),
            "glintr100.onnx",
            "arcface",
        ),
        FaceModel(
            "buffalo_l",  # its file is InsightFace's w600k_r50.onnx, 174,383,860 bytes
            Source(
                "immich-app/buffalo_l", "main", "InsightFace: non-commercial research only", 0.174, commercial=False
            ),
            "recognition/model.onnx",
            "arcface",
        ),
    )
}

_QWEN_FILES = ("*config.json", "tokenizer.json", "*.index.json", "*.safetensors")
_CLIP_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")

JUDGES: dict[str, Judge] = {
    judge.name: judge
    for judge in (
        Judge(
            "qwen3-vl-4b",
            Source("Qwen/Qwen3-VL-4B-Instruct", "ebb281ec70b05090aa6165b016eac8ec08e71b17", "Apache-2.0", 8.9),
            "qwen3-vl",
            _QWEN_FILES,
        ),
        Judge(
            "qwen3-vl-2b",
            Source("Qwen/Qwen3-VL-2B-Instruct", "89644892e4d85e24eaac8bacfd4f463576704203", "Apache-2.0", 4.3),
            "qwen3-vl",
            _QWEN_FILES,
        ),
        Judge(
            "clip-vit-b-32",
            Source("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "1a25a446712ba5ee05982a381eed697ef9b435cf", "MIT", 0.608),
            "clip",
            _CLIP_FILES,
        ),
    )
}


FEATURE_MODELS: dict[str, FeatureModel] = {
    model.name: model
    for model in (
        # DeepMind's I3D of Kinetics-400 (Apache-2.0), as the common implementations of FVD in PyTorch use it.
        FeatureModel("i3d", Source("flateon/FVD-I3D-torchscript", "main", "MIT", 0.05), "i3d_torchscript.pt"),
    )
}

# What the methods that bring a video model of their own fetch, by the method's name. Sizes are computed from the
# shapes of the published classes where nobody could be asked; the plan has the Hub's own once it was asked.
METHOD_WEIGHTS: dict[str, tuple[MethodWeights, ...]] = {
    "id-animator": (
        MethodWeights(
            "face adapter and Stable Diffusion 1.5",
            Source(
                "spaces/ID-Animator/ID-Animator",
                "main",  # stored copies of its pages show one commit, 3ed4c8d…, whose other digits are unknown here
                "no licence of the adapter was found; Realistic Vision: CreativeML Open RAIL-M, whose use restrictions "
                "bind",
                2.4,
                commercial=False,
                pickled=("animator.ckpt",),
            ),
            (
                "animator.ckpt",
                "realisticVisionV60B1_v51VAE.safetensors",
                "animatediff/sd/tokenizer/*",
                "animatediff/sd/text_encoder/config.json",
                "animatediff/sd/unet/config.json",
                "animatediff/sd/vae/config.json",
            ),
        ),
        MethodWeights(
            "motion module of AnimateDiff",
            Source(
                "guoyww/animatediff-motion-adapter-v1-5-2",
                "6167b88ffe39b4441fdf2113e77b99a6f56b7906",
                "Apache-2.0",  # of the authors' guoyww/animatediff; this conversion's own page names none
                1.82,
            ),
            ("config.json", "diffusion_pytorch_model.safetensors"),
        ),
        MethodWeights(
            "CLIP image encoder",
            Source("h94/IP-Adapter", "main", "Apache-2.0", 2.53),
            ("models/image_encoder/config.json", "models/image_encoder/model.safetensors"),
        ),
    ),
    "consisid": (
        MethodWeights(
            "video model and face models",
            Source(
                "BestWishYsh/ConsisID-preview",
                "main",
                "Apache-2.0; its transformer: CogVideoX License; its face models: InsightFace, non-commercial research "
                "only",
                24.0,
                commercial=False,
                pickled=("face_encoder/*.pt", "face_encoder/*.pth", "face_encoder/*.onnx"),
            ),
            (
                "model_index.json",
                "scheduler/*.json",
                "text_encoder/*",
                "tokenizer/*",
                "transformer/*",
                "vae/*",
                "face_encoder/*",
            ),
        ),
    ),
}


def video_model(name: str) -> VideoModel:
    """The model of that name.

    Raises:
        MagicIDError: `settings-unknown`.
    """
    if name not in VIDEO_MODELS:
        raise MagicIDError(
            "settings-unknown", f"No model is called '{name}'.", "Models: " + ", ".join(VIDEO_MODELS) + "."
        )
    return VIDEO_MODELS[name]
