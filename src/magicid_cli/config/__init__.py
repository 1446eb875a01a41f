"""Settings: declared once (`settings.py`), overridden in sets (`presets.py`), looked up in layers (`lookup.py`)."""

from magicid_cli.config.evaluation import EvaluateSettings
from magicid_cli.config.lookup import (
    KNOBS,
    Knob,
    Resolved,
    resolve,
    subset,
    user_config_path,
    value_of,
    with_values,
)
from magicid_cli.config.presets import MODEL_DEFAULTS, PRESETS
from magicid_cli.config.settings import (
    AdapterSettings,
    GenerateSettings,
    ModelSettings,
    PairSettings,
    PhotoSettings,
    PreferSettings,
    ReconstructSettings,
    RepositorySettings,
    RewardSettings,
    Settings,
    ShapeSettings,
    TrainingSettings,
    parse_size,
)

__all__ = [
    "AdapterSettings",
    "EvaluateSettings",
    "GenerateSettings",
    "KNOBS",
    "Knob",
    "MODEL_DEFAULTS",
    "ModelSettings",
    "PRESETS",
    "PairSettings",
    "PhotoSettings",
    "PreferSettings",
    "ReconstructSettings",
    "RepositorySettings",
    "Resolved",
    "RewardSettings",
    "Settings",
    "ShapeSettings",
    "TrainingSettings",
    "parse_size",
    "resolve",
    "subset",
    "user_config_path",
    "value_of",
    "with_values",
]
