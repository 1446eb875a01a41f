"""Every setting with its default, once; presets and the models' own values are in `presets.py`.

A default exists in this file and nowhere else: flags, environment variables, TOML files, `--help` and the reference
page are derived from these dataclasses.
"""

from dataclasses import dataclass

from magicid_cli.config.declared import setting
from magicid_cli.config.evaluation import EvaluateSettings
from magicid_cli.config.methods import (
    CompareSettings,
    ConsisIdSettings,
    DreamBoothSettings,
    IdAnimatorSettings,
    MagicMeSettings,
)
from magicid_cli.config.model import ModelSettings
from magicid_cli.config.repository import RepositorySettings
from magicid_cli.errors import MagicIDError


@dataclass(frozen=True)
class PhotoSettings:
    """Which photos are good enough, and what the person is called in a prompt."""

    class_word: str = setting(
        "person",
        "What the person is called in prompts and captions",
        flag="--class-word",
        choices=("man", "woman", "person"),
    )
    limit: int = setting(30, "Most photos used", flag="--max-photos", low=1, high=200)
    min_face: int = setting(64, "Smallest face, in pixels of its shorter side", flag="--min-face", low=8)
    min_sharpness: float = setting(
        20.0,
        "Least sharpness: the face's fine detail in percent of its contrast, whatever the light",
        flag="--min-sharpness",
        low=0,
        high=100,
    )
    min_light: float = setting(
        40.0,
        "Least brightness (0 to 255) that the brightest twentieth of the face must reach",
        flag="--min-light",
        low=0,
        high=255,
    )
    max_blown_out: float = setting(
        0.5, "Largest share of the face that may be blown out to white", flag="--max-blown-out", low=0, high=1
    )
    captions: str = setting(
        "template",
        "Who writes the photos' captions: the same template for each, or the model of --vlm, which looks at them",
        flag="--captions",
        choices=("template", "vlm"),
    )
    keep_duplicates: bool = setting(False, "Keep near-duplicate photos", flag="--keep-duplicates")
    force: bool = setting(False, "Go on although the photos seem to show different people", flag="--force")


@dataclass(frozen=True)
class ShapeSettings:
    """The one shape of the repository and of both training stages: sampled latents are training latents."""

    frames: int = setting(61, "Frames of a training clip (4k + 1)", flag="--frames", low=1)
    size: str = setting("544x320", "Training size, WIDTHxHEIGHT, multiples of 16", flag="--size")
    fps: int = setting(
        24, "Frames per second at which clips are played and motion is measured", flag="--fps", low=1, high=120
    )

    @property
    def width(self) -> int:
        """Width in pixels."""
        return parse_size(self.size)[0]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return parse_size(self.size)[1]


@dataclass(frozen=True)
class AdapterSettings:
    """The LoRA adapter."""

    rank: int = setting(64, "LoRA rank", flag="--rank", low=1, high=1024)
    alpha: float = setting(64.0, "LoRA alpha; the update is scaled by alpha / rank", flag="--alpha", low=0)
    targets: str = setting(
        "attention",
        "Layers of the transformer blocks that get an adapter",
        flag="--targets",
        choices=("attention", "attention+mlp"),
    )
    double_blocks_only: bool = setting(
        False, "Adapt only the double-stream blocks (known to keep motion)", flag="--double-blocks-only"
    )


@dataclass(frozen=True)
class TrainingSettings:
    """What both training stages share."""

    guidance: float = setting(
        1.0,
        "Guidance value fed to the guidance-distilled model in training, for policy and reference alike",
        flag="--train-guidance",
        low=0,
    )
    timesteps: str = setting(
        "logit-normal",
        "How training timesteps are drawn, before the model's shift",
        flag="--timesteps",
        choices=("logit-normal", "uniform"),
    )
    max_grad_norm: float = setting(1.0, "Gradient norm is clipped to this", flag="--max-grad-norm", low=0)
    gradient_checkpointing: bool = setting(
        True,
        "Recompute activations in the backward pass (same gradients, less memory)",
        flag="--gradient-checkpointing",
        result=False,
    )
    save_every: int = setting(250, "Steps between checkpoints", flag="--save-every", low=1, result=False)


@dataclass(frozen=True)
class ReconstructSettings:
    """Stage 1: LoRA reconstruction on static clips."""

    steps: int = setting(1000, "Stage 1 steps", flag="--reconstruct-steps", low=1)
    learning_rate: float = setting(2e-5, "Stage 1 learning rate", flag="--reconstruct-lr", low=0)
    weight_decay: float = setting(1e-4, "Stage 1 weight decay", flag="--reconstruct-weight-decay", low=0)
    warmup: int = setting(0, "Stage 1 steps of linear warm-up", flag="--reconstruct-warmup", low=0)
    batch: int = setting(1, "Clips a step", flag="--reconstruct-batch", low=1)
    clip: str = setting(
        "static",
        "What stage 1 learns from: static clips of the training length, or single frames",
        flag="--reconstruct-clip",
        choices=("static", "frame"),
    )


@dataclass(frozen=True)
class RewardSettings:
    """The models that judge photos and videos."""

    face_detector: str = setting(
        "auto",
        "Face finder; auto is what the catalog names for the model",
        flag="--face-detector",
        choices=("auto", "yunet", "drawn", "stand-in"),
    )
    face_model: str = setting(
        "auto",
        "Face recogniser: auto, a name (see `magicid doctor`), or a path to a 112-pixel ArcFace ONNX file",
        flag="--face-model",
    )
    evaluation_face_model: str = setting(
        "auto", "Face recogniser that judges results, never the reward's; auto is the catalog's other one", result=False
    )
    flow: str = setting(
        "auto",
        "Optical flow of the dynamics reward; auto: that of the scores there are, else RAFT where it can be used",
        flag="--flow",
        choices=("auto", "raft", "dis"),
    )
    vlm: str = setting(
        "auto",
        "Judge of prompt following, and writer of captions and prompts: auto or a name of the catalog",
        flag="--vlm",
    )
    sampled_frames: int = setting(
        8, "Frames shown to the judge of prompt following", flag="--vlm-frames", low=1, high=32
    )


@dataclass(frozen=True)
class PairSettings:
    """Hybrid pair selection."""

    count: int = setting(100, "Preference pairs to train on", flag="--pair-count", low=1)
    identity_share: float = setting(0.5, "Share of identity-preferred pairs", flag="--identity-share", low=0, high=1)
    tau: float | None = setting(
        None,
        "Largest lead in dynamics (1-10 scale) of the rejected video of an identity pair; default: the median",
        flag="--tau",
    )
    video_cap: int = setting(10, "Most pairs a generated video appears in", flag="--video-cap", low=1)
    rejected_cap: int = setting(
        2, "Most identity pairs in which a video is the rejected one", flag="--rejected-cap", low=1
    )
    prompt: str = setting(
        "rejected",
        "Prompt of an identity pair: the rejected video's, or the static clip's caption",
        flag="--pair-prompt",
        choices=("rejected", "static"),
    )
    rewards: str = setting(
        "identity+dynamics+semantics",
        "Rewards that select pairs (the paper's ablation)",
        flag="--pair-rewards",
        choices=("identity", "identity+dynamics", "identity+dynamics+semantics"),
    )
    dynamics: str = setting(
        "total",
        "Motion that counts: all of it, or the subject's, without what the camera does",
        flag="--dynamics",
        choices=("total", "subject"),
    )
    fronts: str = setting(
        "prompt",
        "Pareto fronts of dynamic pairs: of each prompt's videos, or global; a pair shares its prompt in both",
        flag="--fronts",
        choices=("prompt", "global"),
    )
    dynamic_rule: str = setting(
        "dominating",
        "Winner of a dynamic pair: on an upper front and dominating, or the one that moves more by the largest gap",
        flag="--dynamic-rule",
        choices=("dominating", "motion-gap"),
    )
    identity_tolerance: float = setting(
        0.5,
        "Identity (1-10 scale) that the winner may lack against the rejected video with --dynamic-rule motion-gap",
        flag="--identity-tolerance",
        low=0,
        high=9,
    )
    held_out: int = setting(
        10, "Pairs held out, on prompts and photos of their own, to watch over-fitting", flag="--held-out", low=0
    )
    use_votes: bool = setting(
        False,
        "Pairs as people voted on the page of `magicid review`: kept, turned round, added, dropped",
        flag="--use-votes",
    )


@dataclass(frozen=True)
class PreferSettings:
    """Stage 2: hybrid preference optimization."""

    # The paper's 5000 would take one H100 more than ten hours by the plan's rate.
    steps: int = setting(
        4000, "Stage 2 steps of each round; 0 stops after stage 1 (DreamBooth-LoRA)", flag="--prefer-steps", low=0
    )
    learning_rate: float = setting(2e-5, "Stage 2 learning rate", flag="--prefer-lr", low=0)
    weight_decay: float = setting(1e-4, "Stage 2 weight decay", flag="--prefer-weight-decay", low=0)
    warmup: int = setting(0, "Stage 2 steps of linear warm-up", flag="--prefer-warmup", low=0)
    batch: int = setting(1, "Pairs a step", flag="--prefer-batch", low=1)
    beta: float | None = setting(
        None, "Strength of the preference; default: solved from probe steps", flag="--beta", low=1e-6
    )
    probe_steps: int = setting(32, "Discarded steps from which beta is solved", flag="--probe-steps", low=1)
    gradient_factor: float = setting(
        0.3,
        "Gradient factor that beta gives the median margin after the probe steps",
        flag="--gradient-factor",
        low=0.01,
        high=0.49,
    )
    anchor: float = setting(
        0.0,
        "Weight of a reconstruction term on the winner, in units of beta / 2; 0 leaves it out",
        flag="--anchor",
        low=0,
    )
    winner_guard: float = setting(
        0.0,
        "Factor by which the margin grows with a winner error above the reference's; 0 leaves it out",
        flag="--winner-guard",
        low=0,
    )
    noise: str = setting(
        "same",
        "Noise and time of a pair's two videos: the same for both, or independent draws",
        flag="--pair-noise",
        choices=("same", "independent"),
    )
    reference: str = setting(
        "stage-1",
        "Reference of the preference: the stage-1 model (in a later round its start), or the untouched base",
        flag="--reference",
        choices=("stage-1", "base"),
    )
    bank: int = setting(
        0,
        "Inexact: draws of time and noise a pair has, the reference measured once at each; 0 draws anew at every step",
        flag="--reference-bank",
        low=0,
    )
    held_out_every: int = setting(
        250, "Steps between measurements of the held-out margin", flag="--held-out-every", low=1, result=False
    )
    guards: bool = setting(True, "Stop when training does harm, and keep the best checkpoint", flag="--guards")
    watch_every: int = setting(800, "Steps between looks of the guards", flag="--watch-every", low=1)
    watch_videos: int = setting(4, "Videos that the guards sample at a look", flag="--watch-videos", low=1)


@dataclass(frozen=True)
class GenerateSettings:
    """`magicid generate`."""

    frames: int = setting(61, "Frames (4k + 1)", flag="--frames", low=1)
    size: str = setting("1280x720", "Size, WIDTHxHEIGHT, multiples of 16; 720x1280 is portrait", flag="--size")
    fps: int = setting(24, "Frames per second", flag="--fps", low=1, high=120)
    steps: int = setting(50, "Denoising steps", flag="--steps", low=1)
    guidance: float = setting(7.5, "Embedded guidance", flag="--guidance", low=0)
    true_guidance: float = setting(
        1.0,
        "True classifier-free guidance; above 1 it doubles the time and allows a negative prompt",
        flag="--true-guidance",
        low=1,
    )
    negative_prompt: str = setting("", "What to avoid; needs --true-guidance above 1", flag="--negative-prompt")
    count: int = setting(1, "Videos to make", flag="--count", low=1)
    adapter: str = setting(
        "final",
        "Adapter: the finished one, that of stage 1 alone, or none (the untouched model)",
        flag="--adapter",
        choices=("final", "stage-1", "none"),
    )
    adapter_start: float = setting(
        0.0,
        "Share of the denoising steps that the untouched model does alone, before the adapter is switched on",
        flag="--adapter-start",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class Settings:
    """All settings, by section."""

    seed: int | None = setting(None, "Seed; drawn and recorded when absent", flag="--seed", low=0, high=2**63 - 1)
    rounds: int = setting(
        1,
        "Rounds of sampling, scoring, pairing and stage 2; each later one starts from the adapter of the one before",
        flag="--rounds",
        low=1,
    )
    model: ModelSettings = ModelSettings()
    photos: PhotoSettings = PhotoSettings()
    shape: ShapeSettings = ShapeSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingSettings = TrainingSettings()
    reconstruct: ReconstructSettings = ReconstructSettings()
    repository: RepositorySettings = RepositorySettings()
    rewards: RewardSettings = RewardSettings()
    pairs: PairSettings = PairSettings()
    prefer: PreferSettings = PreferSettings()
    dreambooth: DreamBoothSettings = DreamBoothSettings()
    magic_me: MagicMeSettings = MagicMeSettings()
    compare: CompareSettings = CompareSettings()
    id_animator: IdAnimatorSettings = IdAnimatorSettings()
    consisid: ConsisIdSettings = ConsisIdSettings()
    generate: GenerateSettings = GenerateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all of MagicID's training together: what another method gets, too."""
        return self.reconstruct.steps + self.rounds * self.prefer.steps


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` → (width, height) in pixels.

    Raises:
        MagicIDError: `settings-invalid` if the text has another form or a side is not a positive multiple of 16.
    """
    width, _, height = text.lower().partition("x")
    if width.isdecimal() and height.isdecimal():
        sides = int(width), int(height)
        if min(sides) >= 16 and sides[0] % 16 == 0 and sides[1] % 16 == 0:
            return sides
    raise MagicIDError(
        "settings-invalid",
        f"'{text}' is not a size: WIDTHxHEIGHT in pixels, both multiples of 16, is expected.",
        "Try 544x320, 960x544, 1280x720, or 720x1280 for portrait.",
    )
