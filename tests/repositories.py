"""Scored repositories written by hand, and the default rule of selection, for the tests of `hpo`."""

import numpy as np

from magicid_cli import hpo

RULE = hpo.PairRule(
    count=100,
    identity_share=0.5,
    tau=None,
    video_cap=10,
    rejected_cap=2,
    held_out=0,
    rewards=hpo.REWARDS,
    fronts="prompt",
    dynamic_rule="dominating",
    identity_tolerance=0.5,
)


Rewards = tuple[float, float, float]
Videos = dict[int, list[Rewards]]


def repository(sampled: Videos, static: list[Rewards]) -> hpo.Candidates:
    """Videos by prompt and static clips, one a photo; the ids are in the order of the candidates."""
    prompt = [number for number, videos in sampled.items() for _ in videos]
    raw = [rewards for videos in sampled.values() for rewards in videos]
    return hpo.Candidates(
        ids=[f"v{n:03d}" for n in range(len(raw))] + [f"x{n:03d}" for n in range(len(static))],
        origin=["initial" if n % 3 == 0 else "tuned" for n in range(len(raw))] + ["static"] * len(static),
        prompt=np.array(prompt + [-1] * len(static), dtype=int),
        photo=np.array([-1] * len(raw) + list(range(len(static))), dtype=int),
        raw=np.array(raw + static, dtype=float).reshape(-1, 3),
    )
