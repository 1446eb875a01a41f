"""Captions of the reference photos."""


def template(class_word: str) -> str:
    """The caption of a head-and-shoulders photo that only names the class word; needs no model.

    "A photo of" is there on purpose: stage 1 repeats a photo to a motionless clip, and words that name the
    stillness let it settle on them instead of on the person.

    Args:
        class_word: what the person is called: `man`, `woman` or `person`.
    """
    return f"a photo of a {class_word}, head and shoulders"
