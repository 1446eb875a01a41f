"""Facts about the methods that `--method` knows: what each is, who may use it, what it trains. No settings.

A method that trains has a module with the functions of a stage (`NAME`, `TITLE`, `FORMAT`, `READS`, `inputs`,
`outputs`, `check`, `prepare`, `run`), and `begun`, which tells how far an interrupted training is by the names that the
plan of a reconstruction has for its parts; its videos are made by `generation.generate` from its folder
`methods/<name>/` inside the identity's. A method that trains nothing has a module with

    plan_rows(settings) -> list[plan.Row]
    require(workspace, settings) -> None, which refuses what `generate` would refuse, in milliseconds
    generate(workspace, settings, wanted, *, output, force, events) -> list[generation.Made]

where `workspace` is the method's folder (`Workspace(name, method=…)`), whose `references` are the identity's, and a
finished video leaves the same line in `videos/videos.jsonl` as MagicID's own.
"""

from dataclasses import dataclass

from magicid_cli.errors import MagicIDError


@dataclass(frozen=True)
class Method:
    """A way to make videos of a person.

    Attributes:
        name: what the user types, and the name of its folder.
        title: in tables.
        paper: where it is from.
        module: of `magicid_cli`, that runs it; empty for MagicID itself.
        trains: what is trained for one person; empty if nothing is.
        licence: of the method's code and of the weights that it needs beside the video model.
        non_commercial: parts that may not be used commercially, each as the user must read it.
        own_model: whether it brings a video model of its own instead of the one of `--model`.
        gpu_dtype: of a model of its own on a GPU, by torch's name: what its authors run it in.
    """

    name: str
    title: str
    paper: str
    module: str
    trains: str
    licence: str
    non_commercial: tuple[str, ...] = ()
    own_model: bool = False
    gpu_dtype: str = "bfloat16"


MAGICID = "magicid"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(MAGICID, "MagicID", "arXiv 2503.12689", "", "a LoRA, by reconstruction and then by preference", "ours"),
        Method(
            "dreambooth",
            "DreamBooth-LoRA",
            "arXiv 2208.12242",
            "baselines.dreambooth",
            "a LoRA, by reconstruction for as many steps as MagicID's two stages take",
            "ours: written from the paper; no weights beside the video model's",
        ),
        Method(
            "magic-me",
            "Magic-Me",
            "arXiv 2402.09368",
            "baselines.magic_me",
            "a few keyword embeddings of the text encoder",
            "ours: written from the paper, whose own code is Apache-2.0; no weights beside the video model's",
        ),
        Method(
            "id-animator",
            "ID-Animator",
            "arXiv 2404.15275",
            "baselines.id_animator",
            "",
            "Stable Diffusion 1.5 and Realistic Vision: CreativeML Open RAIL-M; AnimateDiff and CLIP's image encoder: "
            "Apache-2.0; the face adapter: none was found",
            ("ID-Animator's face adapter, for which no licence was found that would allow it",),
            own_model=True,
            gpu_dtype="float16",
        ),
        Method(
            "consisid",
            "ConsisID",
            "arXiv 2411.17440",
            "baselines.consisid",
            "",
            "Apache-2.0 for the most part; its transformer is derived from CogVideoX-5B: CogVideoX License, which asks "
            "for a registration before commercial use",
            ("the face models of InsightFace (antelopev2), which are for non-commercial research",),
            own_model=True,
        ),
    )
}


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        MagicIDError: `settings-unknown`.
    """
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise MagicIDError("settings-unknown", f"No method is called '{name}'.", f"Methods: {known}.")
    return METHODS[name]


def trained_method(name: str) -> str:
    """The name of a method that learns a person.

    Raises:
        MagicIDError: `settings-unknown`, or `settings-invalid` for one that trains nothing.
    """
    found = method(name)
    if not found.trains:
        learners = ", ".join(one.name for one in METHODS.values() if one.trains)
        raise MagicIDError(
            "settings-invalid",
            f"{found.title} trains nothing for a person: there is nothing to customize.",
            f"Use it as it is: magicid generate --method {name} --prompt TEXT. Methods that train: {learners}.",
        )
    return name
