"""What the folders of trained weights say about themselves, to whoever finds them without magicid around."""

from magicid_cli.world.clips import FRAMES, SIZE

_ORIGIN = f"""\
Licence: Apache-2.0, as magicid's code. Trained from random numbers on drawings of people who do not exist, as
videos of {SIZE} x {SIZE} pixels and {FRAMES} frames; no photograph and no other model's weights went into them. They
are for trying the method, for teaching and for tests, and of no use beyond: they know nothing of photographs, nor of
anybody real.
"""

CHECKPOINT = f"""\
---
license: apache-2.0
library_name: diffusers
---

# hunyuan-mini

A miniature of HunyuanVideo, of the same classes; `diffusers.HunyuanVideoPipeline.from_pretrained` reads this folder.

{_ORIGIN}"""
"""Of the checkpoint in the Hub's layout."""

WEIGHTS = f"""\
# The weights of magicid's drawn world

`hunyuan-mini/` is the miniature HunyuanVideo. `face_finder`, `face_encoder` and `prompt_scorer` find and recognise
drawn people and say what a clip shows; `face_judge` is the face encoder of the evaluation.

{_ORIGIN}"""
"""Of the folder around it, with the judges."""
