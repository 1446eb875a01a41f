"""Where a setting's value comes from: the first layer that has one wins.

    flag  >  MAGICID_<SECTION>_<FIELD>  >  ./magicid.toml  >  the user's config.toml  >  the model's own  >  default

A layer that names a preset (`--preset paper`, `preset = "paper"`) behaves as if it had set all of that preset's values,
which its own explicit values then override. The preset's `shape` is left out for a model that has its own.
"""

import difflib
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import Field, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs

from magicid_cli.config.presets import MODEL_DEFAULTS, PRESETS
from magicid_cli.config.settings import Settings, parse_size
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import own_home


@dataclass(frozen=True)
class Knob:
    """One setting as the outside sees it.

    Attributes:
        name: dotted name, `section.field` (or `seed`).
        kind: its annotation, e.g. `int` or `float | None`.
        default: the default of the dataclass.
        help: one sentence.
        flag: the command-line flag or None.
        result: whether it can change what a run produces.
    """

    name: str
    kind: Any
    default: Any
    help: str
    flag: str | None
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    result: bool

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "MAGICID_" + self.name.replace(".", "_").upper()


def _knob(prefix: str, spec: Field[Any]) -> Knob:
    return Knob(name=prefix + spec.name, kind=spec.type, default=spec.default, **spec.metadata)


def _knobs() -> Iterator[Knob]:
    for spec in fields(Settings):
        if is_dataclass(spec.default):
            for inner in fields(spec.default):
                yield _knob(f"{spec.name}.", inner)
        else:
            yield _knob("", spec)


KNOBS: dict[str, Knob] = {knob.name: knob for knob in _knobs()}


def value_of(settings: Settings, name: str) -> Any:
    """The value of a dotted name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def subset(settings: Settings, names: tuple[str, ...]) -> dict[str, Any]:
    """The values of some dotted names or whole sections that can change a result, as plain data.

    A stage lists what it reads this way; the digest of the subset is part of what makes the stage stale.
    """
    return {
        name: value_of(settings, name)
        for name, knob in KNOBS.items()
        if knob.result and (name in names or name.partition(".")[0] in names)
    }


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A copy with some dotted names changed."""
    for name, value in values.items():
        section, _, inner = name.partition(".")
        new = replace(getattr(settings, section), **{inner: value}) if inner else value
        settings = replace(settings, **{section: new})
    return settings


@dataclass(frozen=True)
class Resolved:
    """Settings and, for every dotted name, where its value came from."""

    settings: Settings
    origins: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """All values as plain data."""
        return asdict(self.settings)


def user_config_path() -> Path:
    """The user's `config.toml`; `MAGICID_HOME` moves it."""
    return (own_home() or platformdirs.user_config_path("magicid")) / "config.toml"


def resolve(
    flags: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    project: Path | None = None,
    identity_model: str | None = None,
) -> Resolved:
    """Look every setting up in all layers.

    Args:
        flags: values given on the command line, by dotted name; None values count as not given.
        preset: the preset named by a flag.
        project: the folder whose `magicid.toml` counts; the current one by default.
        identity_model: the model that an existing identity was made with; it counts where no layer names a model.

    Raises:
        MagicIDError: a value, a file or a name is wrong.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    project_file = (project or Path.cwd()) / "magicid.toml"
    layers = [
        (f"{user_config_path()}", _from_file(user_config_path())),
        (f"{project_file}", _from_file(project_file)),
        ("environment", _from_environment()),
        ("flag", {"preset": preset, **given}),
    ]
    named = [layer["model.name"] for _, layer in layers if "model.name" in layer]
    model = str([KNOBS["model.name"].default if identity_model is None else identity_model, *named][-1])
    own = MODEL_DEFAULTS.get(model, {})
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for name, value, source in _expand(origin, layer, {name for name in own if name.startswith("shape.")}):
            values[name], origins[name] = value, source
    if identity_model is not None and "model.name" not in values:
        values["model.name"], origins["model.name"] = identity_model, "identity"
    for name, value in own.items():
        values.setdefault(name, value)
        origins.setdefault(name, f"model {model}")
    checked = {name: _check(KNOBS[name], value, origins[name]) for name, value in values.items()}
    settings = with_values(Settings(), checked)
    origins = {name: origins.get(name, "default") for name in KNOBS}
    _check_shape(settings, origins)
    return Resolved(settings, origins)


def _expand(origin: str, layer: Mapping[str, Any], kept: Collection[str]) -> Iterator[tuple[str, Any, str]]:
    """A layer's values: first its preset's, apart from the names that the model keeps as its own; then the layer's."""
    name = layer.get("preset")
    if name is not None:
        if not isinstance(name, str) or name not in PRESETS:
            known = ", ".join(PRESETS)
            raise MagicIDError("settings-unknown", f"No preset is called '{name}' ({origin}).", f"Presets: {known}.")
        for key, value in PRESETS[name].items():
            if key not in kept:
                yield key, value, f"preset {name} ({origin})"
    for key, value in layer.items():
        if key != "preset":
            where = f"environment {KNOBS[key].variable}" if origin == "environment" else origin
            where = f"flag {KNOBS[key].flag}" if origin == "flag" else where
            yield key, value, where


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise MagicIDError(
            "settings-unreadable", f"{path} cannot be read: {error}.", f"Correct or remove {path}."
        ) from error
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    for name in flat:
        if name != "preset" and name not in KNOBS:
            raise MagicIDError(
                "settings-unknown",
                f"{path} sets '{name}', which is no setting.",
                "`magicid config show` lists every setting.",
            )
    return flat


def _from_environment() -> dict[str, Any]:
    """What the environment sets; a variable of a section that is no setting of it is a slip, others are not ours."""
    variables = [knob.variable for knob in KNOBS.values()]
    sections = {f"MAGICID_{name.partition('.')[0].upper()}_" for name in KNOBS if "." in name}
    for name in sorted(set(os.environ) - set(variables)):
        if f"{name}_".startswith(tuple(sections)):
            near = difflib.get_close_matches(f"{name}_NAME" if f"{name}_" in sections else name, variables, 1)
            raise MagicIDError(
                "settings-unknown",
                f"The environment sets {name}, which is no setting.",
                f"Did you mean {near[0]}?" if near else "`magicid config show` lists every setting.",
            )
    found: dict[str, Any] = {k.name: os.environ[k.variable] for k in KNOBS.values() if k.variable in os.environ}
    if "MAGICID_PRESET" in os.environ:
        found["preset"] = os.environ["MAGICID_PRESET"]
    return found


# What a value of each type is called to people.
_KINDS: dict[Any, str] = {
    bool: "yes or no",
    int: "a whole number",
    int | None: "a whole number",
    float: "a number",
    float | None: "a number",
    str: "text",
}


def _check(knob: Knob, value: Any, origin: str) -> Any:
    """Convert to the setting's type and hold it against its bounds."""
    try:
        converted = _convert(knob, value)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(knob, value, origin, _KINDS[knob.kind]) from None
    if knob.choices and converted not in knob.choices:
        raise _invalid(knob, value, origin, "one of " + ", ".join(knob.choices))
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        if converted != converted or converted in (float("inf"), float("-inf")):
            raise _invalid(knob, value, origin, "a finite number")
        if knob.low is not None and converted < knob.low:
            raise _invalid(knob, value, origin, f"at least {knob.low:g}")
        if knob.high is not None and converted > knob.high:
            raise _invalid(knob, value, origin, f"at most {knob.high:g}")
    return converted


def _convert(knob: Knob, value: Any) -> Any:
    if knob.kind is bool:
        if isinstance(value, bool):
            return value
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if str(value).lower() not in words:
            raise ValueError(value)
        return words[str(value).lower()]
    if isinstance(value, bool):
        raise ValueError(value)
    if knob.kind is str:
        if not isinstance(value, str):
            raise ValueError(value)
        return value
    if knob.kind in (int, int | None):
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(value)
        return int(value)
    return float(value)


def _invalid(knob: Knob, value: Any, origin: str, wanted: str) -> MagicIDError:
    # A value that came from the flag names it already.
    name = f"{knob.name} ({knob.flag})" if knob.flag and not origin.startswith("flag ") else knob.name
    return MagicIDError(
        "settings-invalid",
        f"{name} is '{value}' ({origin}); {wanted} is expected.",
        "`magicid config show` lists every setting.",
    )


def _check_shape(settings: Settings, origins: Mapping[str, str]) -> None:
    """Frame counts the VAE would silently cut, sizes that the transformer refuses, and what only goes together."""
    for section in ("shape", "generate", "id_animator", "consisid"):
        size, frames = f"{section}.size", f"{section}.frames"
        try:
            parse_size(value_of(settings, size))
        except MagicIDError as error:
            raise MagicIDError("settings-invalid", f"{size} ({origins[size]}): {error.message}", error.hint) from None
        count = value_of(settings, frames)
        if count % 4 != 1 and section != "id_animator":  # its frames are denoised and decoded one by one
            below = count - (count - 1) % 4
            raise MagicIDError(
                "settings-invalid",
                f"{frames} is {count} ({origins[frames]}); the model works with 4k + 1 frames.",
                f"Try {below} or {below + 4}.",
            )
    strength = settings.repository.step_cache
    whole = strength == 0 or (strength >= 2 and strength % 1 == 0)
    if settings.repository.step_cache_kind == "taylorseer" and not whole:
        raise MagicIDError(
            "settings-invalid",
            f"repository.step_cache is {strength:g} ({origins['repository.step_cache']}); with taylorseer it is the "
            "steps from one computed step to the next, a whole number from 2 on.",
            "Try --step-cache 2.",
        )
    if settings.generate.negative_prompt and settings.generate.true_guidance <= 1:
        raise MagicIDError(
            "settings-invalid",
            "A negative prompt has no effect without true classifier-free guidance.",
            "Add --true-guidance 6, or leave --negative-prompt out.",
        )
