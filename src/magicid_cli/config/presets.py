"""Overrides of the defaults, by dotted name: named sets for `--preset`, and what a model other than the 13B one needs.

What a preset says about `shape` is meant for the 13B model: a model with a shape of its own keeps it. Everything else
holds for every model.
"""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The paper to the letter: full resolution everywhere, its doses and pairs, and every pair used for training.
    "paper": {
        "shape.size": "1280x720",
        "reconstruct.steps": 1000,
        "repository.prompts": 20,
        "repository.tuned": 100,
        "repository.initial": 20,
        "pairs.count": 100,
        "pairs.identity_share": 0.5,
        "pairs.dynamic_rule": "dominating",
        "pairs.held_out": 0,
        "prefer.steps": 5000,
        "prefer.guards": False,
    },
}

# A model that is not the 13B one cannot use its shapes and doses: these come right above the defaults.
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "mini": {
        "shape.frames": 9,
        "shape.size": "48x48",
        "shape.fps": 8,
        "adapter.rank": 16,
        "adapter.alpha": 16.0,
        # Of six million parameters the attention layers alone hold too little of a face.
        "adapter.targets": "attention+mlp",
        # Everything fits into memory, so no block need be computed twice.
        "training.gradient_checkpointing": False,
        "training.save_every": 50,
        "reconstruct.steps": 300,
        "reconstruct.learning_rate": 5e-3,
        "reconstruct.batch": 4,
        "repository.prompts": 6,
        "repository.tuned": 24,
        "repository.initial": 6,
        "repository.steps": 16,
        "repository.guidance": 2.5,
        "pairs.count": 24,
        # Of five videos a prompt few dominate another, and the static winner of an identity pair teaches stillness:
        # on person 7 the paper's rules cost 12 % of the motion, these none (benchmarks/LOG.md).
        "pairs.identity_share": 0.25,
        "pairs.dynamic_rule": "motion-gap",
        "pairs.held_out": 4,
        "prefer.steps": 120,
        "prefer.learning_rate": 2e-4,
        "prefer.batch": 4,
        "prefer.probe_steps": 8,
        "prefer.held_out_every": 20,
        "prefer.watch_every": 60,
        "prefer.watch_videos": 3,
        "magic_me.batch": 4,
        "compare.prompts": 7,
        "generate.frames": 9,
        "generate.size": "48x48",
        "generate.fps": 8,
        "generate.steps": 16,
        "generate.guidance": 2.5,
    },
    "tiny": {
        "shape.frames": 9,
        "shape.size": "64x64",
        "shape.fps": 8,
        "adapter.rank": 4,
        "adapter.alpha": 4.0,
        "training.save_every": 10,
        "reconstruct.steps": 40,
        "reconstruct.learning_rate": 1e-3,
        "repository.prompts": 6,
        "repository.tuned": 18,
        "repository.initial": 6,
        "repository.steps": 4,
        "pairs.count": 12,
        "pairs.held_out": 2,
        "prefer.steps": 40,
        "prefer.learning_rate": 1e-3,
        "prefer.probe_steps": 8,
        "prefer.held_out_every": 10,
        "prefer.watch_every": 10,
        "prefer.watch_videos": 2,
        "compare.prompts": 3,
        "generate.frames": 9,
        "generate.size": "64x64",
        "generate.fps": 8,
        "generate.steps": 8,
    },
}
