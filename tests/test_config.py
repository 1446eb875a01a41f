"""Settings, against their contract: who wins, where a value came from, what is refused, and one place per default."""

import ast
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

import magicid_cli
from magicid_cli.config import (
    KNOBS,
    MODEL_DEFAULTS,
    PRESETS,
    Resolved,
    Settings,
    parse_size,
    resolve,
    subset,
    user_config_path,
    value_of,
    with_values,
)
from magicid_cli.errors import MagicIDError
from magicid_cli.models.catalog import VIDEO_MODELS

SOURCE = Path(magicid_cli.__file__).parent
STEPS = "reconstruct.steps"


@pytest.fixture(autouse=True)
def _empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)


def user_file(text: str) -> Path:
    path = user_config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def project_file(text: str) -> Path:
    path = Path.cwd() / "magicid.toml"
    path.write_text(text, encoding="utf-8")
    return path


def found(resolved: Resolved, name: str) -> tuple[Any, str]:
    return value_of(resolved.settings, name), resolved.origins[name]


def refused(code: str, *words: str, **options: Any) -> MagicIDError:
    with pytest.raises(MagicIDError) as caught:
        resolve(**options)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)
    for word in words:
        assert word in caught.value.message, caught.value.message
    assert caught.value.hint
    return caught.value


# --- who wins -----------------------------------------------------------------------------------------------------


def test_without_any_layer_everything_is_the_default() -> None:
    resolved = resolve()
    assert resolved.settings == Settings()
    assert set(resolved.origins) == set(KNOBS)
    assert set(resolved.origins.values()) == {"default"}


def test_each_layer_wins_over_the_one_below(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(resolve(), STEPS) == (1000, "default")
    user = user_file('[model]\nname = "tiny"\n')
    assert found(resolve(), STEPS) == (40, "model tiny")
    user = user_file('[model]\nname = "tiny"\n[reconstruct]\nsteps = 1\n')
    assert found(resolve(), STEPS) == (1, str(user))
    project = project_file("[reconstruct]\nsteps = 2\n")
    assert found(resolve(), STEPS) == (2, str(project))
    monkeypatch.setenv("MAGICID_RECONSTRUCT_STEPS", "3")
    assert found(resolve(), STEPS) == (3, "environment MAGICID_RECONSTRUCT_STEPS")
    resolved = resolve({STEPS: 4})
    assert found(resolved, STEPS) == (4, "flag --reconstruct-steps")
    assert found(resolved, "model.name") == ("tiny", str(user))
    assert found(resolve({STEPS: None}), STEPS) == (3, "environment MAGICID_RECONSTRUCT_STEPS")


def test_another_projects_file_can_be_named(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "magicid.toml").write_text("seed = 5\n")
    assert found(resolve(project=other), "seed") == (5, str(other / "magicid.toml"))
    assert found(resolve(), "seed") == (None, "default")


def test_a_preset_counts_for_its_own_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset in a layer beats every lower layer, and loses to the same layer's explicit values and to higher ones."""
    paper = PRESETS["paper"]["shape.size"]
    user = user_file('[shape]\nsize = "960x544"\n')
    assert found(resolve(preset="paper"), "shape.size") == (paper, "preset paper (flag)")
    assert found(resolve({"shape.size": "64x64"}, preset="paper"), "shape.size") == ("64x64", "flag --size")
    user_file('preset = "paper"\n[shape]\nsize = "960x544"\n')
    assert found(resolve(), "shape.size") == ("960x544", str(user))
    assert found(resolve(), "pairs.held_out") == (0, f"preset paper ({user})")
    project = project_file('preset = "paper"\n')
    assert found(resolve(), "shape.size") == (paper, f"preset paper ({project})")
    monkeypatch.setenv("MAGICID_SHAPE_SIZE", "32x32")
    assert found(resolve(), "shape.size") == ("32x32", "environment MAGICID_SHAPE_SIZE")
    monkeypatch.delenv("MAGICID_SHAPE_SIZE")
    project_file("")
    user_file("")
    monkeypatch.setenv("MAGICID_PRESET", "paper")
    assert found(resolve(), "shape.size") == (paper, "preset paper (environment)")


def test_a_preset_beats_the_models_own_values() -> None:
    resolved = resolve({"model.name": "tiny"}, preset="paper")
    assert found(resolved, "pairs.held_out") == (0, "preset paper (flag)")
    assert found(resolved, "pairs.count") == (100, "preset paper (flag)")
    assert found(resolved, "adapter.rank") == (4, "model tiny")


@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_a_preset_leaves_a_model_the_shape_that_is_its_own(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1280x720 is the 13B model's; whichever layers name the preset and the model, and in which order."""
    own = MODEL_DEFAULTS[model]["shape.size"]
    assert found(resolve({"model.name": model}, preset="paper"), "shape.size") == (own, f"model {model}")
    assert found(resolve(preset="paper", identity_model=model), "shape.size") == (own, f"model {model}")
    monkeypatch.setenv("MAGICID_MODEL_NAME", model)
    assert found(resolve(preset="paper"), "shape.size") == (own, f"model {model}")
    user_file('preset = "paper"\n')
    assert found(resolve(), "shape.size") == (own, f"model {model}")
    # An explicit size is nobody's preset, and another model named in a higher layer is the one that counts.
    assert found(resolve({"shape.size": "64x64"}), "shape.size") == ("64x64", "flag --size")
    big = resolve({"model.name": "hunyuan-video"}, preset="paper")
    assert found(big, "shape.size") == ("1280x720", "preset paper (flag)")


def test_the_identitys_model_counts_where_nobody_names_one() -> None:
    assert found(resolve(identity_model="tiny"), "model.name") == ("tiny", "identity")
    assert found(resolve(identity_model="tiny"), STEPS) == (40, "model tiny")
    named = resolve({"model.name": "hunyuan-video"}, identity_model="tiny")
    assert found(named, "model.name") == ("hunyuan-video", "flag --model")
    assert found(named, STEPS) == (1000, "default")


def test_magicid_home_moves_the_users_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAGICID_HOME", str(tmp_path / "elsewhere"))
    assert user_config_path() == tmp_path / "elsewhere" / "config.toml"


def test_a_setting_may_have_a_dotted_key() -> None:
    project_file("reconstruct.steps = 6\n")
    assert found(resolve(), STEPS)[0] == 6


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[reconstruct]\nsteps = 'many'\n", ("reconstruct.steps", "--reconstruct-steps", "many", "a whole number")),
        ("[reconstruct]\nsteps = 1.5\n", ("reconstruct.steps", "1.5", "a whole number")),
        ("[reconstruct]\nsteps = true\n", ("reconstruct.steps", "True")),
        ("[reconstruct]\nsteps = [1]\n", ("reconstruct.steps",)),
        ("[reconstruct]\nsteps = 0\n", ("reconstruct.steps", "at least 1")),
        ("[reconstruct]\nlearning_rate = nan\n", ("finite",)),
        ("[reconstruct]\nlearning_rate = inf\n", ("finite",)),
        ("[reconstruct]\nlearning_rate = 1" + "0" * 400 + "\n", ("reconstruct.learning_rate", "a number")),
        ("[pairs]\nidentity_share = 1.1\n", ("pairs.identity_share", "at most 1")),
        ("[pairs]\ntau = 'x'\n", ("pairs.tau", "a number")),
        ("[adapter]\nrank = 2000\n", ("adapter.rank", "at most 1024")),
        ("[adapter]\ntargets = 'all'\n", ("adapter.targets", "attention, attention+mlp")),
        ("[adapter]\ndouble_blocks_only = 'maybe'\n", ("adapter.double_blocks_only", "yes or no")),
        ("[model]\nname = 3\n", ("model.name", "text is")),
        ("[model]\nname = ['tiny']\n", ("model.name", "text is")),
        ("seed = -1\n", ("seed", "at least 0")),
        ("[shape]\nframes = 8\n", ("shape.frames is 8", "magicid.toml", "4k + 1")),
        ("[generate]\nframes = 10\n", ("generate.frames is 10", "magicid.toml")),
        ("[shape]\nsize = '100x100'\n", ("shape.size", "magicid.toml", "multiples of 16")),
        ("[generate]\nsize = 'large'\n", ("generate.size", "large")),
        ("[generate]\nnegative_prompt = 'blur'\n", ("negative prompt", "true")),
    ],
)
def test_a_bad_value_is_refused_by_name_and_place(toml: str, words: tuple[str, ...]) -> None:
    project_file(toml)
    refused("settings-invalid", *words)


def test_a_bad_value_of_the_environment_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGICID_PREFER_BETA", "strong")
    refused("settings-invalid", "prefer.beta (--beta) is 'strong' (environment MAGICID_PREFER_BETA)")
    monkeypatch.setenv("MAGICID_PREFER_BETA", "")
    refused("settings-invalid", "MAGICID_PREFER_BETA")


def test_a_bad_flag_names_the_flag_once() -> None:
    error = refused("settings-invalid", flags={"prefer.beta": -1.0})
    assert error.message == "prefer.beta is '-1.0' (flag --beta); at least 1e-06 is expected."


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("reconstruct.steps", "a whole number is expected"),
        ("seed", "a whole number is expected"),
        ("reconstruct.learning_rate", "a number is expected"),
        ("prefer.beta", "a number is expected"),
        ("model.offline", "yes or no is expected"),
    ],
)
def test_the_expected_type_is_said_in_words(monkeypatch: pytest.MonkeyPatch, name: str, wanted: str) -> None:
    monkeypatch.setenv(KNOBS[name].variable, "strong")
    refused("settings-invalid", wanted)


def test_every_type_of_a_setting_has_words() -> None:
    for knob in KNOBS.values():
        refused("settings-invalid", knob.name, flags={knob.name: []})


def test_a_variable_that_is_nearly_a_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAGICID_SHARED_DATA", "MAGICID_SEEDS", "MAGICIDS_PREFER_STEP"):
        monkeypatch.setenv(name, "3")
    assert resolve().settings == Settings()
    monkeypatch.setenv("MAGICID_PREFER_STEP", "3")
    assert "MAGICID_PREFER_STEPS?" in refused("settings-unknown", "MAGICID_PREFER_STEP,").hint
    monkeypatch.delenv("MAGICID_PREFER_STEP")
    monkeypatch.setenv("MAGICID_MODEL_ZZZZZZZZZZZZZZZZZZZZ", "3")
    assert "config show" in refused("settings-unknown", "MAGICID_MODEL_ZZZ").hint
    monkeypatch.delenv("MAGICID_MODEL_ZZZZZZZZZZZZZZZZZZZZ")
    # Ignored silently, this slip would start the 13B model.
    monkeypatch.setenv("MAGICID_MODEL", "tiny")
    assert "MAGICID_MODEL_NAME?" in refused("settings-unknown", "MAGICID_MODEL,").hint


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("[reconstruct]\nstep = 3\n", "reconstruct.step"),
        ("[reconstuct]\nsteps = 3\n", "reconstuct.steps"),
        ("steps = 3\n", "'steps'"),
        ("model = 'tiny'\n", "'model'"),
        ("[model.tiny]\nsteps = 3\n", "'model.tiny'"),
        ("preset = 'papier'\n", "papier"),
        ("preset = ['paper']\n", "paper"),
    ],
)
def test_an_unknown_name_is_refused_with_its_file(toml: str, word: str) -> None:
    path = project_file(toml)
    refused("settings-unknown", word, str(path))


def test_an_unknown_preset_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for preset in ("papier", ""):
        assert "default, paper" in refused("settings-unknown", preset=preset).hint
    monkeypatch.setenv("MAGICID_PRESET", "papier")
    refused("settings-unknown", "papier", "environment")


@pytest.mark.parametrize("content", [b"[reconstruct\n", b"seed = \n", b"seed = 1\nseed = 2\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(content: bytes) -> None:
    path = project_file("")
    path.write_bytes(content)
    refused("settings-unreadable", str(path))


# --- conversions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MAGICID_SEED", "9223372036854775807", 2**63 - 1),
        ("MAGICID_ADAPTER_ALPHA", "8", 8.0),
        ("MAGICID_RECONSTRUCT_LEARNING_RATE", "1e-4", 1e-4),
        ("MAGICID_MODEL_OFFLINE", "on", True),
        ("MAGICID_MODEL_OFFLINE", "FALSE", False),
        ("MAGICID_PAIRS_TAU", "-0.5", -0.5),
        ("MAGICID_GENERATE_SIZE", "720X1280", "720X1280"),
    ],
)
def test_text_of_the_environment_becomes_the_settings_type(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    monkeypatch.setenv(name, text)
    knob = next(knob for knob in KNOBS.values() if knob.variable == name)
    converted = value_of(resolve().settings, knob.name)
    assert (converted, type(converted)) == (value, type(value))


def test_whole_floats_are_whole_numbers() -> None:
    project_file("[reconstruct]\nsteps = 5.0\nlearning_rate = 1\n")
    settings = resolve().settings
    assert (settings.reconstruct.steps, type(settings.reconstruct.steps)) == (5, int)
    assert type(settings.reconstruct.learning_rate) is float


@pytest.mark.parametrize(("text", "sides"), [("544x320", (544, 320)), ("720X1280", (720, 1280)), ("16x16", (16, 16))])
def test_sizes(text: str, sides: tuple[int, int]) -> None:
    assert parse_size(text) == sides


@pytest.mark.parametrize(
    "text", ["", "544", "544x", "x320", "544x321", "0x16", "-16x16", "16x16x16", "1e2x16", " 16 x 16"]
)
def test_bad_sizes(text: str) -> None:
    with pytest.raises(MagicIDError) as caught:
        parse_size(text)
    assert caught.value.code == "settings-invalid"


@pytest.mark.parametrize("frames", range(1, 20))
def test_frame_counts_are_4k_plus_1_and_the_hint_offers_two(frames: int) -> None:
    flags = {"generate.frames": frames}
    if frames in (1, 5, 9, 13, 17):
        assert resolve(flags).settings.generate.frames == frames
    else:
        hint = refused("settings-invalid", flags=flags).hint
        offered = [int(word.strip(".")) for word in hint.split() if word.strip(".").isdecimal()]
        assert len(offered) == 2
        assert offered[0] < frames < offered[1]
        assert all(number % 4 == 1 for number in offered)


def test_a_negative_prompt_needs_true_guidance() -> None:
    flags = {"generate.negative_prompt": "blur", "generate.true_guidance": 6.0}
    assert resolve(flags).settings.generate.negative_prompt == "blur"


# --- presets and models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("model", VIDEO_MODELS)
def test_every_preset_resolves_with_every_model(preset: str, model: str) -> None:
    settings = resolve({"model.name": model}, preset=preset).settings
    own = {name: value for name, value in MODEL_DEFAULTS.get(model, {}).items() if name.startswith("shape.")}
    for name, value in (PRESETS[preset] | own).items():
        assert value_of(settings, name) == value


def test_presets_and_model_values_name_settings_and_models_that_exist() -> None:
    for values in (*PRESETS.values(), *MODEL_DEFAULTS.values()):
        assert set(values) <= set(KNOBS)
    assert set(MODEL_DEFAULTS) <= set(VIDEO_MODELS)


@pytest.mark.parametrize("model", VIDEO_MODELS)
def test_the_paper_s_counts_hold_for_every_model(model: str) -> None:
    """Steps, prompts, videos and pairs against the figures that the paper states."""
    settings = resolve({"model.name": model}, preset="paper").settings
    assert (settings.reconstruct.steps, settings.prefer.steps) == (1000, 5000)
    assert (settings.repository.prompts, settings.repository.tuned, settings.repository.initial) == (20, 100, 20)
    assert (settings.pairs.count, settings.pairs.held_out) == (100, 0)


def test_paper_figures() -> None:
    """`--preset paper` against the figures that the paper states."""
    settings = resolve(preset="paper").settings
    assert (settings.shape.frames, settings.shape.width, settings.shape.height) == (61, 1280, 720)
    assert (settings.reconstruct.steps, settings.prefer.steps) == (1000, 5000)
    assert (settings.reconstruct.learning_rate, settings.prefer.learning_rate) == (2e-5, 2e-5)
    assert (settings.reconstruct.weight_decay, settings.prefer.weight_decay) == (1e-4, 1e-4)
    assert (settings.repository.prompts, settings.repository.tuned, settings.repository.initial) == (20, 100, 20)
    assert (settings.repository.steps, settings.repository.guidance) == (50, 7.5)
    assert (settings.generate.steps, settings.generate.guidance) == (50, 7.5)
    assert (settings.pairs.count, settings.pairs.held_out) == (100, 0)


def test_the_default_model_is_always_the_real_one() -> None:
    assert KNOBS["model.name"].default == "hunyuan-video"


def test_every_default_is_valid_itself() -> None:
    flags = {name: value_of(Settings(), name) for name in KNOBS}
    assert resolve(flags).settings == Settings()


# --- helpers ------------------------------------------------------------------------------------------------------


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().seed = 3  # type: ignore[misc]


def test_with_values_changes_a_copy() -> None:
    changed = with_values(Settings(), {STEPS: 3, "seed": 4})
    assert (changed.reconstruct.steps, changed.seed) == (3, 4)
    assert Settings().reconstruct.steps == 1000


def test_a_subset_holds_what_can_change_a_result() -> None:
    values = subset(Settings(), ("model", "training.save_every", "training.guidance"))
    assert values == {
        "model.name": "hunyuan-video",
        "model.dtype": "auto",
        "model.base": "full",
        "training.guidance": 1.0,
    }


def test_flags_are_unique_but_for_the_shape_of_training_and_of_generating() -> None:
    flags = [knob.flag for knob in KNOBS.values() if knob.flag]
    assert {flag for flag in flags if flags.count(flag) > 1} == {"--frames", "--size", "--fps"}


def test_every_setting_says_what_it_is_for() -> None:
    assert not [knob.name for knob in KNOBS.values() if not knob.help or knob.help.endswith(".")]
    variables = [knob.variable for knob in KNOBS.values()]
    assert len(set(variables)) == len(variables)


# --- a default exists once ----------------------------------------------------------------------------------------

# Values that mean "not used" repeat no decision: a caller that leaves them out gets the plain thing.
OFF: dict[str, set[Any]] = {
    **{"true_guidance": {1}, "batch": {1}, "count": {1}},
    # `Execution` that says nothing: the model as it is loaded, on whatever kernel there is.
    **{"base": {"full"}, "attention": {"auto"}},
}


def literals(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """Names with the expression they start from: parameters, class attributes and constants of the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            positional = [*node.args.posonlyargs, *node.args.args]
            for argument, default in zip(reversed(positional), reversed(node.args.defaults), strict=False):
                yield argument.arg, default
            for argument, wanted in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                yield argument.arg, wanted
        if isinstance(node, ast.Module | ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield statement.target.id, statement.value
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    yield statement.targets[0].id, statement.value


def repeated(source: str) -> list[str]:
    """Names of settings that a source file gives a value of its own."""
    return [
        f"{name} = {expression.value!r}"
        for name, expression in literals(ast.parse(source))
        if isinstance(expression, ast.Constant) and repeats(name, expression.value)
    ]


def repeats(name: str, value: object) -> bool:
    """Whether a literal decides again what a setting of that name decides: a number, or the setting's own word.

    Switches that are off, empty text and None decide nothing.
    """
    plain = name.lower().strip("_").removeprefix("default_")
    knobs = [knob for name, knob in KNOBS.items() if plain in (name.rpartition(".")[2], name.replace(".", "_"))]
    if value in OFF.get(plain, set()):
        return False
    if type(value) in (int, float):
        return any(type(knob.default) in (int, float) for knob in knobs)
    return bool(value) and isinstance(value, str) and value in [knob.default for knob in knobs]


# The drawn world's pictures and training are no settings: their numbers belong to the weights that come with magicid.
APART = (SOURCE / "config" / "settings.py", SOURCE / "config" / "presets.py", SOURCE / "world")
SCANNED = sorted(path for path in SOURCE.rglob("*.py") if not any(path.is_relative_to(one) for one in APART))


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(SOURCE))) for path in SCANNED])
def test_no_default_is_repeated(path: Path) -> None:
    assert repeated(path.read_text(encoding="utf-8")) == []


def test_the_scan_sees_what_it_should() -> None:
    assert repeated("def f(a, rank=64, *, width=8, fps=30): ...") == ["rank = 64", "fps = 30"]
    assert repeated("LEARNING_RATE = 2e-5\nclass A:\n    max_grad_norm: float = 1.0") == [
        "LEARNING_RATE = 2e-05",
        "max_grad_norm = 1.0",
    ]
    assert repeated("DEFAULT_FPS = 24\n_PROMPT = 'rejected'") == ["DEFAULT_FPS = 24", "_PROMPT = 'rejected'"]
    assert repeated("def f(steps: int, seed=0, offline=False, name='x', tau=None, true_guidance=1.0): ...") == []
