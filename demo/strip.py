"""What a customization has changed: one picture to look at, and likeness and motion over several prompts and seeds.

    python demo/strip.py NAME --album FOLDER --person SEED --prompt TEXT [--prompt TEXT] --seed N --output strip.png

The same prompts and the same noise three times: by the untouched miniature, by stage 1 (reconstruction of the photos
alone) and by MagicID. Likeness is judged by the evaluation's face encoder, which no reward ever saw; motion is the flow
that the dynamics reward measures. Beside the PNG lies a JSON with the figures.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the contact sheets of the benchmarks

import numpy as np
from benchmarks import _sheet, _table

from magicid_cli import adapters, config, generation, models
from magicid_cli.config import Settings
from magicid_cli.events import Events
from magicid_cli.faces import open_evaluation_faces
from magicid_cli.models.base import Family, Shape
from magicid_cli.models.catalog import video_model
from magicid_cli.photos import decode
from magicid_cli.prompts import drawn, names
from magicid_cli.rewards.base import Clip, Reward
from magicid_cli.rewards.dynamics import SHORT_SIDE, DynamicsReward
from magicid_cli.rewards.identity import IdentityReward
from magicid_cli.workspace import Workspace, write_json
from magicid_cli.world import captions, clips

if TYPE_CHECKING:
    import torch

BASE, STAGE_1, MAGICID, TRUTH = "untouched", "stage 1", "MagicID", "drawn"
SIDE = 96  # pixels of a shown frame


@dataclass(frozen=True)
class Wanted:
    """One video: what it shall show, and the seed of its noise."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Judged:
    """What the judges say about a video: likeness (0 to 1), motion (pixels per 1/8 s at 256), the prompted action."""

    likeness: float
    motion: float
    followed: bool


def main() -> None:
    """Make the videos, judge them, draw the strip, print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="an identity customized with --model mini")
    parser.add_argument("--album", type=Path, required=True, help="the photos that it was made from")
    parser.add_argument("--person", type=int, required=True, help="the seed of the drawn person in them")
    parser.add_argument("--prompt", action="append", required=True, help="of videos in the strip; may be given again")
    parser.add_argument("--seed", type=int, default=7, help="of their noise")
    parser.add_argument("--prompts", type=int, default=7, help="how many prompts are measured; 7 is every action once")
    parser.add_argument("--seeds", type=int, default=2, help="how many videos of each")
    parser.add_argument("--output", type=Path, required=True, help="the PNG")
    options = parser.parse_args()
    workspace = Workspace(options.name)
    settings = config.resolve(identity_model=workspace.manifest()["model"]).settings
    word = workspace.manifest()["class_word"]
    shown = [Wanted(said(prompt, options.name, word), options.seed) for prompt in options.prompt]
    # Prompts of another seed than the customization's: not those that it has practised.
    texts = drawn.pick(options.prompts, options.seed + 1, word)
    wanted = [Wanted(text, options.seed + 1 + number) for text in texts for number in range(options.seeds)]
    made = videos(workspace, settings, [*shown, *wanted])
    made[TRUTH] = [rendered(one, options.person, clips.SIZE) for one in [*shown, *wanted]]
    album = [decode(path).rgb for path in sorted(options.album.glob("*.png"))]
    judges = Judges(album, settings)
    judged = {who: judges.judge(clip_, [*shown, *wanted]) for who, clip_ in made.items()}
    # Hard edges that were drawn small and are enlarged read as faster than they are (benchmarks/_miniature.py).
    large = judges.motions([rendered(one, options.person, SHORT_SIDE) for one in [*shown, *wanted]])
    judged[TRUTH] = [replace(row, motion=motion) for row, motion in zip(judged[TRUTH], large, strict=True)]
    draw(options.output, shown, album, made, judged)
    figures = {who: mean(rows[len(shown) :]) for who, rows in judged.items()}
    tell(figures, len(texts), options.seeds, options.output)
    about = {"machine": _table.machine("magicid", "torch", "diffusers"), "shown": [vars(one) for one in shown]}
    each = {who: [vars(row) for row in rows] for who, rows in judged.items()}
    measured = {"prompts": texts, "seeds": options.seeds, "figures": figures, "videos": each}
    write_json(options.output.with_suffix(".json"), {**about, **measured})


def said(prompt: str, name: str, class_word: str) -> str:
    """The prompt as `magicid generate` gives it to the model."""
    return drawn.spelled(names.resolve(prompt, {name: class_word}, name).text)


# ------------------------------------------------------------------------------------------------------------ videos


def videos(workspace: Workspace, settings: Settings, wanted: list[Wanted]) -> dict[str, list[np.ndarray]]:
    """The videos of the untouched model, of stage 1 and of MagicID, uint8 RGB `(F, H, W, 3)` each, as `generate` does.

    Raises:
        MagicIDError: `identity-unfinished`, or what reading an adapter and the model raises.
    """
    family = models.open_family(settings.model, Events())
    family.load("text")
    texts = {one.prompt: family.encode_text(one.prompt) for one in wanted}
    family.unload("text")
    family.load("transformer")
    latents = {BASE: [_sampled(family, settings, texts[one.prompt], one.seed) for one in wanted]}
    final = generation.adapter_of(workspace)
    for who, path in ((STAGE_1, workspace.reconstruct / "adapter.safetensors"), (MAGICID, final)):
        tensors, spec = adapters.load(path)
        attached = who.replace(" ", "_")
        adapters.attach(family.transformer, attached, spec, seed=0)
        adapters.load_tensors(family.transformer, attached, tensors)
        adapters.select(family.transformer, attached)
        latents[who] = [_sampled(family, settings, texts[one.prompt], one.seed) for one in wanted]
    family.unload("transformer")
    family.load("vae")
    return {who: [family.decode(one) for one in found] for who, found in latents.items()}


def _sampled(family: Family, settings: Settings, text: generation.Text, seed: int) -> "torch.Tensor":
    width, height = config.parse_size(settings.generate.size)
    shape = Shape(settings.generate.frames, height, width)
    return family.sample(text, shape, steps=settings.generate.steps, guidance=settings.generate.guidance, seed=seed)


def rendered(wanted: Wanted, who: int, size: int) -> np.ndarray:
    """The person themselves, drawn as the prompt says at `size` pixels: what likeness and motion could be."""
    asked = captions.wish(wanted.prompt)
    light = next((name for name, phrase in captions.LIGHT_PHRASES.items() if phrase in wanted.prompt), "clear")
    mood = next((mood for mood in captions.MOODS if mood in wanted.prompt), "serious")
    scene = clips.Scene(
        person=who,
        action=asked.action or "still",
        place=asked.place or "garden",
        outfit=asked.outfit or "red sweater",
        light=light,
        mood=mood,
        seed=wanted.seed,
    )
    return clips.render(scene, size=size).frames


# ------------------------------------------------------------------------------------------------------------ judges


class Judges:
    """Likeness to the photos of an album, motion, and whether the prompted action is seen.

    Args:
        album: the photos, uint8 RGB `(H, W, 3)`.
        settings: the customization's.
    """

    def __init__(self, album: list[np.ndarray], settings: Settings) -> None:
        from magicid_cli.rewards.drawn import DrawnJudge

        model = video_model(settings.model.name)
        faces = open_evaluation_faces(settings.rewards, model, offline=True, events=Events())
        found = [(photo, faces.detector.find(photo)) for photo in album]
        references = np.stack([faces.recogniser.embed(photo, there[0]) for photo, there in found if there])
        self._rewards: list[Reward] = [IdentityReward(faces, references), DynamicsReward("dis"), DrawnJudge(Events())]

    def judge(self, made: list[np.ndarray], wanted: list[Wanted]) -> list[Judged]:
        """What they say about each video."""
        rows = []
        for frames, one in zip(made, wanted, strict=True):
            clip = Clip(frames, clips.FPS, one.prompt)
            identity, dynamics, semantics = (reward.score(clip) for reward in self._rewards)
            followed = semantics["seen"]["action"] == captions.wish(one.prompt).action
            rows.append(Judged(identity["value"], dynamics["value"], followed))
        return rows

    def motions(self, made: list[np.ndarray]) -> list[float]:
        """The motion of each video alone."""
        return [float(self._rewards[1].score(Clip(frames, clips.FPS, ""))["value"]) for frames in made]


def mean(rows: list[Judged]) -> dict[str, float]:
    """The figures over several videos."""
    return {
        "likeness": round(float(np.mean([row.likeness for row in rows])), 3),
        "motion": round(float(np.mean([row.motion for row in rows])), 2),
        "followed": round(float(np.mean([row.followed for row in rows])), 3),
    }


# ------------------------------------------------------------------------------------------------------ what is seen


def draw(
    path: Path,
    shown: list[Wanted],
    album: list[np.ndarray],
    made: dict[str, list[np.ndarray]],
    judged: dict[str, list[Judged]],
) -> None:
    """The album and, below it, the first videos of each model, prompt after prompt."""
    rows = [_sheet.Row("photos of a drawn person, who exists nowhere", [np.stack(album[: clips.FRAMES])])]
    for number, one in enumerate(shown):
        for who in (BASE, STAGE_1, MAGICID):
            seen = judged[who][number]
            values = f"{who}: likeness {seen.likeness:.2f}, motion {seen.motion:.1f}"
            over = f"{one.prompt}   (seed {one.seed})" if who == BASE else ""
            rows.append(_sheet.Row(values, [made[who][number]], over))
    _sheet.write(path, rows, side=SIDE)


def tell(figures: dict[str, dict[str, float]], prompts: int, seeds: int, path: Path) -> None:
    """Print the figures as they are."""
    print(f"{prompts} prompts x {seeds} seeds, the same for all; likeness by an encoder that no reward saw")
    print(f"{'':<12}{'likeness':>10}{'motion':>10}{'action seen':>14}")
    for who, values in figures.items():
        print(f"{who:<12}{values['likeness']:>10.2f}{values['motion']:>10.1f}{values['followed']:>14.0%}")
    print(f"({TRUTH}: the person themselves by the renderer, doing what the prompts say)")
    print(f"strip:   {path}")


if __name__ == "__main__":
    main()
