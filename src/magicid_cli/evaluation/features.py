"""What FVD compares: a video as one vector, by I3D or by what the drawn world and the tests have in its place."""

from pathlib import Path
from typing import Any

import numpy as np

from magicid_cli import hub
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation.measure import device_of, run_on
from magicid_cli.events import Events
from magicid_cli.models.catalog import DRAWN, FEATURE_MODELS, STAND_INS, video_model
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.drawn import DrawnJudge
from magicid_cli.rewards.standin import StandInJudge
from magicid_cli.workspace import cache_home, file_digest, read_json, write_json

SIDE = 224
TORCHSCRIPT = ".pt"
KINDS = (TORCHSCRIPT, ".safetensors")


class Features:
    """A video's features for FVD.

    Args:
        settings: name the network, and how many frames I3D is shown.
        events: hears of downloads, and of the content hash of a file that is used for the first time.
        used: whether it will look at videos; otherwise only who would look is asked, and its file is not noted as used.

    Raises:
        MagicIDError: `features-unusable` for a file that is not there, or for a program that is another one than
            before; or what `hub.fetch_file` raises.
    """

    name = "features"
    metrics = ("fvd",)

    def __init__(self, settings: Settings, events: Events, *, used: bool = True) -> None:
        self._settings = settings
        self._frames = settings.evaluate.fvd_frames
        wanted = settings.evaluate.fvd_features
        self.network = video_model(settings.model.name).evaluation_features if wanted == "auto" else wanted
        self._i3d: Any = None
        self._judge: DrawnJudge | StandInJudge | None = None
        if self.network in DRAWN:
            self._judge = DrawnJudge(events)
            self.made_by = f"{self._judge.made_by}, what it reads its answers from (not I3D)"
        elif self.network in STAND_INS:
            self._judge = StandInJudge()
            self.made_by = f"{self._judge.made_by} (not I3D)"
        else:
            self._path, content = _file(self.network, settings, events)
            if used:
                _remember(_known_as(self.network, self._path), self._path, content, events)
            where = run_on(device_of(settings.model))
            self.made_by = (
                f"I3D {self._path.name} sha256:{content}, first {self._frames} frames at {SIDE} pixels, {where}"
            )

    def reads(self, prompt: str | None) -> list[Any]:
        """As the Protocol says."""
        return []

    def look(self, clip: Clip, prompt: str | None) -> dict[str, Any]:
        """`vector`: the features, a list of numbers; null for a video with fewer frames than I3D is shown.

        Raises:
            MagicIDError: `features-unusable`.
        """
        if isinstance(self._judge, DrawnJudge):
            return {"vector": self._judge.whole(clip.frames).tolist()}
        if isinstance(self._judge, StandInJudge):
            pictures = self._judge.pictures(clip.frames)
            change = np.abs(np.diff(pictures, axis=0)).mean(0) if len(pictures) > 1 else np.zeros(pictures.shape[1])
            return {"vector": [*pictures.mean(0).tolist(), *change.tolist()]}
        if len(clip.frames) < self._frames:
            return {"vector": None}
        return {"vector": self._of_i3d(clip.frames[: self._frames])}

    def close(self) -> None:
        """As the Protocol says."""
        self._i3d = None

    def _of_i3d(self, frames: np.ndarray) -> list[float]:
        import cv2
        import torch

        device = device_of(self._settings.model)
        if self._i3d is None:
            self._i3d = open_i3d(self._path, device)
        small = np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames])
        clips = (torch.from_numpy(small).to(device).float() / 127.5 - 1).permute(3, 0, 1, 2)[None]
        try:
            with torch.inference_mode():
                found = self._i3d(clips).double().cpu().numpy()
        # A program of another network raises whatever its operators do.
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise unusable(self._path, str(error).strip().rpartition("\n")[2]) from error
        if found.ndim != 2 or len(found) != 1 or not np.isfinite(found).all():
            raise unusable(self._path, f"it answers with numbers of shape {found.shape}, or not finite ones")
        return [float(value) for value in found[0]]


def open_i3d(path: Path, device: str) -> Any:
    """A function from clips `(B, 3, T, 224, 224)`, RGB from -1 to 1, to features `(B, D)`.

    TorchScript is a program in torch's own language: it is read without Python's pickle, and can do what torch's
    operators can. Its arguments are those of the usual file.

    Raises:
        MagicIDError: `features-unusable`.
    """
    import torch
    from safetensors import SafetensorError

    from magicid_cli.evaluation import i3d

    try:
        if path.suffix == TORCHSCRIPT:
            script = torch.jit.load(str(path), map_location=device).eval()
            return lambda clips: script(clips, rescale=False, resize=False, return_features=True)
        from safetensors.torch import load_file

        weights = {name: tensor.float() for name, tensor in load_file(path, device=device).items()}
        if "logits.conv3d.weight" not in weights:
            raise unusable(path, "it lacks the tensor logits.conv3d.weight")
        return lambda clips: i3d.logits(clips, weights)
    except (RuntimeError, OSError, ValueError, SafetensorError) as error:
        raise unusable(path, str(error).strip().partition("\n")[0]) from error


def _file(network: str, settings: Settings, events: Events) -> tuple[Path, str]:
    """The file, fetched if it is not here, and the SHA-256 of its content."""
    if network in FEATURE_MODELS:
        model = FEATURE_MODELS[network]
        here = hub.state(model.source, [model.file]) == "cached"
        if not here:
            events.notice(f"FVD needs {model.source.repo}, licence: {model.source.licence}.", stage="evaluate")
        offline = settings.model.offline or here
        path = hub.fetch_file(model.source, model.file, offline=offline, events=events, formats=KINDS).path
    else:
        path = Path(network).expanduser()
        if path.suffix not in KINDS or not path.is_file():
            raise MagicIDError(
                "features-unusable",
                f"'{network}' is no {' or '.join(KINDS)} file with I3D.",
                "Give another --fvd-features, or leave it at auto.",
            )
    return path, file_digest(path)


def _known_as(network: str, path: Path) -> str:
    model = FEATURE_MODELS.get(network)
    return f"{model.source.repo}/{model.file}" if model else str(path.absolute())


def _remember(known_as: str, file: Path, content: str, events: Events) -> None:
    """Note the content of a file that is used for the first time, and tell when another one has its name.

    Raises:
        MagicIDError: `features-unusable` if that other one is a program: it would be run.
    """
    path = cache_home() / "evaluation" / "features.json"
    known = _known(path)
    before = known.get(known_as)
    if before == content:
        return
    if before is None:
        events.notice(f"{known_as} is used for the first time; its content is sha256:{content}.", stage="evaluate")
    elif file.suffix == TORCHSCRIPT:
        raise MagicIDError(
            "features-unusable",
            f"{known_as} is a program that would be run, and it has changed: its content was sha256:{before} and is "
            f"sha256:{content}.",
            f"If you trust the new one, remove its entry from {path}; else restore the file, or give another one with "
            "--fvd-features.",
        )
    else:
        events.notice(
            f"{known_as} has changed: its content was sha256:{before} and is sha256:{content}. FVDs by the two cannot "
            "be compared.",
            stage="evaluate",
        )
    write_json(path, known | {known_as: content})


def _known(path: Path) -> dict[str, str]:
    """Contents of files that were used before, by name; none if nobody can read what was noted."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def unusable(path: Path, why: str) -> MagicIDError:
    """The error for a file that is no I3D."""
    return MagicIDError(
        "features-unusable", f"{path.name} cannot be used for FVD: {why}.", "Give another file with --fvd-features."
    )
