"""A preference pair at one time with one noise: drawn anew at every step, or from a bank of a few fixed draws."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from magicid_cli import adapters, conditioning, hpo
from magicid_cli.config import Settings
from magicid_cli.models.base import Family
from magicid_cli.randomness import derived_seed
from magicid_cli.workspace import append_line, read_lines, write_lines


@dataclass(frozen=True)
class Pair:
    """A pair ready to train on: latents `(C, f, h, w)` on disk, conditioning in memory."""

    winner: Path
    rejected: Path
    text: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Draw:
    """One pair at one time with one noise: four errors waiting to be measured.

    Attributes:
        winner: measures the policy's error on the preferred video, with its graph.
        rejected: the same for the rejected video.
        winner_reference: the reference's error on the preferred video.
        rejected_reference: the reference's error on the rejected video.
        t: the time, in (0, 1); the winner's, if each video has its own.
    """

    winner: Callable[[], torch.Tensor]
    rejected: Callable[[], torch.Tensor]
    winner_reference: torch.Tensor
    rejected_reference: torch.Tensor
    t: float


def draw(
    family: Family,
    pair: Pair,
    generator: torch.Generator,
    settings: Settings,
    references: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Draw:
    """Draw the time and the noise that both videos of the pair share, unless each has its own; measure the reference.

    The policy is selected (trainable) when this returns.

    Args:
        family: its transformer is loaded with both adapters.
        pair: the two videos.
        generator: of time and noise.
        settings: the laws of both, guidance and reference.
        references: the reference's errors on winner and rejected, where they are known for this very draw; else they
            are measured, with two forwards.
    """
    latents = [conditioning.load_tensors(path)["latents"] for path in (pair.winner, pair.rejected)]

    def time_and_noise() -> tuple[torch.Tensor, torch.Tensor]:
        t = family.timesteps(1, generator, settings.training.timesteps)
        return t, torch.randn(latents[0].shape, generator=generator)

    def error(x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        x_t, target = family.noised(x0, noise, t)
        return hpo.error(target.to(family.device), family.predict(x_t, t, pair.text, settings.training.guidance))

    first = time_and_noise()
    second = time_and_noise() if settings.prefer.noise == "independent" else first
    winner, rejected = partial(error, latents[0], *first), partial(error, latents[1], *second)
    if references is None:
        reference = None if settings.prefer.reference == "base" else "reference"
        adapters.select(family.transformer, reference, trainable=False)
        with torch.no_grad():
            references = winner(), rejected()
        adapters.select(family.transformer, "policy", trainable=True)
    return Draw(winner, rejected, *references, float(first[0]))


class Bank:
    """A few fixed draws for each pair, at which the reference is measured once and never again.

    Inexact: the policy sees no other times and noises of a pair than these. The errors are kept in a file, so that a
    resumed run measures none twice, and uses the numbers that it used before.

    Args:
        draws: for each pair. Those that are known stay known if there are more or fewer.
        seed: of times and noises; a draw depends on it, the pair's number and its own alone.
        path: of the file, JSON lines.
        key: digest of everything that the errors depend on; those of another key are removed.
    """

    def __init__(self, draws: int, seed: int, path: Path, key: str) -> None:
        self._draws, self._seed, self._path, self._key = draws, seed, path, key
        rows = [row for row in read_lines(path) if row["key"] == key]
        write_lines(path, rows)
        self._known = {(row["pair"], row["draw"]): (row["winner"], row["rejected"]) for row in rows}

    def draw(
        self, family: Family, pairs: list[Pair], item: int, generator: torch.Generator, settings: Settings
    ) -> Draw:
        """One of the pair's draws.

        The policy is selected (trainable) when this returns.

        Args:
            family: its transformer is loaded with both adapters.
            pairs: all training pairs.
            item: which one of them.
            generator: decides which of its draws.
            settings: as for `draw`.
        """
        number = int(torch.randint(self._draws, (1,), generator=generator))
        own = torch.Generator().manual_seed(derived_seed(self._seed, "bank", str(item), str(number)))
        known = self._known.get((item, number))
        if known is not None:
            return draw(family, pairs[item], own, settings, (torch.tensor(known[0]), torch.tensor(known[1])))
        drawn = draw(family, pairs[item], own, settings)
        winner, rejected = float(drawn.winner_reference), float(drawn.rejected_reference)
        row = {"key": self._key, "pair": item, "draw": number, "winner": winner, "rejected": rejected}
        append_line(self._path, row)
        self._known[item, number] = winner, rejected
        return drawn
