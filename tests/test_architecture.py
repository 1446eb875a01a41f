"""The house rules, held against the source itself: who imports whom, what may print, which error codes exist."""

import ast
from pathlib import Path

import pytest

import magicid_cli
from magicid_cli.errors import CODES

SOURCE = Path(magicid_cli.__file__).parent
ROOMS = {
    "cli": 4,
    "pipeline": 3,
    "methods": 3,
    "competition": 3,
    "comparison": 3,
    "stages": 2,
    "checkpoints": 0,
    "workspace": 0,
    "rounds": 0,
    "repeating": 0,
    "config": 0,
    "events": 0,
    "errors": 0,
}
MIDDLE = 1

# Every edge inside the middle row, with its reason; a new one must be argued for here. `catalog` and `family` are
# models/catalog.py (facts) and models/base.py with models/execution.py (the Protocol), which know nothing of the models
# themselves. The drawn world knows no model either; how its networks were made is `world training`, a room that
# nothing but a command enters.
MIDDLE_EDGES = {
    ("baselines", "adapters"): "DreamBooth trains and saves one",
    ("baselines", "destinations"): "where videos go",
    ("baselines", "generation"): "says what was made as it does",
    ("baselines", "hub"): "fetches what other methods bring along",
    ("baselines", "plan"): "rows of what their videos take",
    ("baselines", "video"): "writes their clips",
    ("baselines", "conditioning"): "reads captions and photos, keeps class clips",
    ("baselines", "faces"): "finds the face around which the person is outlined",
    ("baselines", "catalog"): "which face finder belongs to the model",
    ("baselines", "family"): "trains on a family",
    ("baselines", "keywords"): "Magic-Me trains and saves them",
    ("baselines", "models"): "opens the family",
    ("baselines", "photos"): "reads crops",
    ("baselines", "randomness"): "seeds of class clips",
    ("baselines", "reconstruction"): "reconstructs as stage 1 does",
    ("baselines", "training"): "the one training loop",
    ("choosing", "alignment"): "opens OpenCV without its remarks",
    ("choosing", "catalog"): "which face finders are of the drawn world",
    ("choosing", "faces"): "finds and compares faces",
    ("choosing", "framing"): "cuts out head and shoulders",
    ("choosing", "photos"): "decodes photos and tells duplicates",
    ("conditioning", "family"): "encodes through a family",
    ("conditioning", "photos"): "reads crops",
    ("contact_sheet", "framing"): "shows the crops that are trained on",
    ("contact_sheet", "photos"): "by what a sheet is known",
    ("evaluation", "alignment"): "judges on one OpenCV thread",
    ("evaluation", "catalog"): "which judges belong to the model",
    ("evaluation", "faces"): "finds and recognises the person",
    ("evaluation", "hub"): "fetches the network of FVD",
    ("evaluation", "photos"): "decodes the person's photos",
    ("evaluation", "rewards"): "the statistics of the rewards, and the networks that see pictures and words",
    ("evaluation", "video"): "reads videos",
    ("export", "adapters"): "reads the adapter",
    ("export", "baselines"): "who made it, for the card",
    ("export", "catalog"): "licences for the card",
    ("export", "destinations"): "free names",
    ("export", "family"): "loads the merged model back",
    ("export", "generation"): "finds the adapter and puts it on the model",
    ("export", "keywords"): "reads keywords and encodes prompts with them",
    ("export", "models"): "opens the family, reads files back as diffusers does",
    ("faces", "alignment"): "turns faces upright",
    ("faces", "catalog"): "where finders and recognisers are",
    ("faces", "hub"): "fetches them",
    ("faces", "world"): "the networks that find and recognise drawn people",
    ("generation", "adapters"): "puts the adapter on the model",
    ("generation", "destinations"): "where videos go",
    ("generation", "family"): "samples",
    ("generation", "keywords"): "encodes prompts with trained keywords",
    ("generation", "models"): "opens the family",
    ("generation", "plan"): "how the model is held",
    ("generation", "texts"): "prompts as the model reads them",
    ("generation", "video"): "writes the clip",
    ("guards", "adapters"): "switch the policy on to sample, and keep snapshots of it",
    ("guards", "alignment"): "judges on one OpenCV thread",
    ("guards", "catalog"): "which face finder belongs to the model",
    ("guards", "conditioning"): "reads encoded prompts and the photos' embeddings",
    ("guards", "faces"): "finds and embeds faces",
    ("guards", "family"): "samples and decodes the watched videos",
    ("guards", "rewards"): "judge likeness and motion",
    ("guards", "scorebook"): "measures motion as the scores did",
    ("scorebook", "rewards"): "which optical flow made the scores",
    ("hub", "catalog"): "which repositories are ours",
    ("keywords", "conditioning"): "writes tensors",
    ("keywords", "family"): "whose text encoder it is",
    ("keywords", "models"): "opens the text encoder",
    ("models", "catalog"): "where the weights are",
    ("models", "family"): "meets the Protocol",
    ("models", "hpo"): "noises as its parametrisation does",
    ("models", "hub"): "fetches weights",
    ("named_files", "catalog"): "which names are no files",
    ("pages", "catalog"): "which models have licences to name",
    ("pages", "export"): "names licences as the card does",
    ("pages", "hpo"): "draws the frontiers that pairs are selected by",
    ("pages", "photos"): "puts photos beside a study's videos",
    ("pages", "video"): "makes previews",
    ("pages", "votes"): "the page of review shows and takes them",
    ("plan", "catalog"): "sizes and licences",
    ("plan", "family"): "shapes",
    ("plan", "hub"): "what is in the cache",
    ("plan", "models"): "which files would be fetched",
    ("preference", "adapters"): "switches between policy and reference",
    ("preference", "conditioning"): "reads latents",
    ("preference", "family"): "predicts through a family",
    ("preference", "hpo"): "the error",
    ("preference", "randomness"): "seeds of a bank's draws",
    ("prompts", "catalog"): "which judges can write",
    ("prompts", "rewards"): "the models that judge videos also write captions and prompts",
    ("prompts", "world"): "the words of the drawn world",
    ("reconstruction", "adapters"): "attaches the adapter that learns",
    ("reconstruction", "conditioning"): "encodes texts and clips once",
    ("reconstruction", "family"): "predicts through a family",
    ("reconstruction", "hpo"): "the error",
    ("reconstruction", "training"): "batches and schedules",
    ("recordings", "video"): "reads clips",
    ("resume", "randomness"): "puts random states back",
    ("rewards", "alignment"): "the scorer sees a square",
    ("rewards", "catalog"): "where judges are",
    ("rewards", "faces"): "finds and embeds faces",
    ("rewards", "hub"): "fetches judges",
    ("rewards", "world"): "what a prompt of the drawn world asks for, and what a clip of it shows",
    ("step_caching", "adapters"): "measures the untouched model",
    ("step_caching", "conditioning"): "reads an encoded prompt",
    ("step_caching", "family"): "samples a video to measure on",
    ("step_caching", "models"): "measures what blocks add",
    ("texts", "family"): "encodes through a family",
    ("texts", "keywords"): "encodes prompts with trained keywords",
    ("training", "randomness"): "draws the order",
    ("training", "resume"): "goes on from a checkpoint",
    ("world", "destinations"): "which folders cannot be",
    ("world training", "alignment"): "teaches networks what faces and rewards will show them",
    ("world training", "destinations"): "which folders cannot be",
    ("world training", "hpo"): "noises as the method does",
    ("world training", "models"): "the sizes and files of the miniature",
    ("world training", "world"): "draws what is learned from",
}


def modules() -> list[tuple[str, ast.Module]]:
    """(dotted name below the package, syntax tree) of every source file."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found.append((name, ast.parse(path.read_text(encoding="utf-8"))))
    return found


def imports(tree: ast.Module) -> set[str]:
    """Everything of this package that a module imports, anywhere in it, except for type checking."""
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("magicid_cli"):
            base = node.module.removeprefix("magicid_cli").lstrip(".")
            found |= {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("magicid_cli.") for a in node.names if a.name.startswith("magicid_cli.")}
    return {name for name in found if (SOURCE / name.partition(".")[0]).exists() or _is_module(name)}


def _is_module(name: str) -> bool:
    return (SOURCE / f"{name.partition('.')[0]}.py").exists()


_OWN_ROOMS = {
    "models.catalog": "catalog",
    "models.base": "family",
    "models.execution": "family",
    "world.training": "world training",
}


def room(name: str) -> str:
    for module, own in _OWN_ROOMS.items():
        if name == module or name.startswith(module + "."):
            return own
    return name.partition(".")[0]


def test_imports_point_one_way() -> None:
    wrong = []
    for name, tree in modules():
        for target in imports(tree):
            source_row, target_row = ROOMS.get(room(name), MIDDLE), ROOMS.get(room(target), MIDDLE)
            if room(name) in ("", "__main__"):
                continue
            if target_row > source_row:
                wrong.append(f"{name} imports {target}: upwards")
            if room(name) == room(target) == "stages":
                wrong.append(f"{name} imports {target}: stages meet on disk")
    assert not wrong, wrong


def middle_edges() -> set[tuple[str, str]]:
    edges = set()
    for name, tree in modules():
        for target in imports(tree):
            pair = (room(name), room(target))
            rows = [ROOMS.get(part, MIDDLE) for part in pair]
            if rows == [MIDDLE, MIDDLE] and pair[0] != pair[1] and not {"", "__main__", "__version__"} & set(pair):
                edges.add(pair)
    return edges


def test_edges_inside_the_middle_row_are_the_listed_ones() -> None:
    assert middle_edges() == set(MIDDLE_EDGES)


def test_the_middle_row_has_no_circle() -> None:
    edges = middle_edges()
    rooms = {part for edge in edges for part in edge}
    while rooms:
        free = {name for name in rooms if not any(source == name and target in rooms for source, target in edges)}
        assert free, f"a circle among {sorted(rooms)}"
        rooms -= free


def test_only_a_command_trains_the_miniature() -> None:
    inside = "world training"
    users = {room(name) for name, tree in modules() for target in imports(tree) if room(target) == inside}
    assert users == {"cli", inside}


def test_hpo_imports_nothing_of_ours() -> None:
    for name, tree in modules():
        if room(name) == "hpo":
            assert {room(target) for target in imports(tree)} <= {"hpo"}, name


def external(tree: ast.Module, *, top_level_only: bool) -> set[str]:
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("typer", {"cli"}),
        ("rich", {"cli"}),
        ("peft", {"adapters"}),
        ("diffusers", {"models", "cli", "world training", "baselines"}),
        ("platformdirs", {"workspace", "config"}),
    ],
)
def test_only_its_room_uses_a_library(library: str, rooms: set[str]) -> None:
    users = {room(name) for name, tree in modules() if library in external(tree, top_level_only=False)}
    assert users <= rooms


def test_nothing_heavy_is_imported_with_the_command_line() -> None:
    heavy = {"torch", "diffusers", "transformers", "peft", "cv2", "numpy", "PIL", "huggingface_hub", "accelerate"}
    light = {
        "config",
        "errors",
        "events",
        "workspace",
        "plan",
        "costs",
        "hub",
        "pipeline",
        "models.catalog",
        "models.base",
        "models.execution",
    }
    for name, tree in modules():
        if room(name) in ("cli", "prompts") or name in light:
            assert not external(tree, top_level_only=True) & heavy, name


def test_only_the_command_line_prints() -> None:
    for name, tree in modules():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        if room(name) != "cli":
            assert not calls & {"print", "sys.stdout.write", "sys.stderr.write", "sys.exit", "exit"}, name


def raised_codes() -> set[str]:
    found: set[str] = set()
    for _, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("MagicIDError") and node.args:
                constants = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)]
                found |= {value for value in constants if isinstance(value, str)}
    return found


def test_every_code_raised_is_registered_and_the_reverse() -> None:
    # These two are made by the command line itself, from a KeyboardInterrupt and from an unexpected exception.
    by_the_command_line = {"interrupted", "internal", "usage"}
    assert raised_codes() - by_the_command_line == set(CODES) - by_the_command_line


def test_no_pickle_no_shell_no_remote_code() -> None:
    for name, tree in modules():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"eval", "exec", "os.system", "pickle.load", "pickle.loads"}, name
        assert "pickle" not in external(tree, top_level_only=False), name
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg}
            assert given.get("shell") != "True" and given.get("trust_remote_code") != "True", name
            if ast.unparse(node.func) == "torch.load":
                assert given.get("weights_only") == "True", name
