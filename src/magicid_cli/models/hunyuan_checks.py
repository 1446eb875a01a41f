"""What diffusers would take without a word and do otherwise than asked."""

from magicid_cli.errors import MagicIDError
from magicid_cli.models.base import Shape
from magicid_cli.models.hunyuan_text import Text


def check_shape(shape: Shape) -> None:
    """Refuse what diffusers would floor silently or the transformer cannot patch.

    Raises:
        MagicIDError: `settings-invalid`.
    """
    if shape.frames < 1 or shape.frames % 4 != 1 or shape.height % 16 or shape.width % 16:
        raise MagicIDError(
            "settings-invalid",
            f"A video of {shape} cannot be made: frames must be 4k + 1, height and width multiples of 16.",
            "Try 61 frames at 544x320.",
        )


def check_guidance(true_guidance: float, negative: Text | None) -> None:
    """Refuse true guidance without a negative prompt, and the reverse: the pipeline would ignore it.

    Raises:
        MagicIDError: `settings-invalid`.
    """
    if (true_guidance > 1) != (negative is not None):
        raise MagicIDError(
            "settings-invalid",
            "True guidance above 1 and a negative prompt have an effect only together.",
            "Add --true-guidance 6 to the negative prompt, or leave both out.",
        )
