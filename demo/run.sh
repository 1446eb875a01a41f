#!/bin/sh
# The main job on a small embedded model with random weights: customize, generate, export. CPU, no download.
# The person is drawn (demo/draw.py): nobody's face. What you see is the machinery; the videos are noise.
set -eu
magicid="$1"
root="$(cd "$(dirname "$0")/.." && pwd)"
# A home of its own, whatever the user's settings say: the demo replaces files of its identity without asking.
export MAGICID_HOME="$root/demo-home"
# Tensors of a few thousand numbers: more threads mostly wait for each other, on busy cores for minutes.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
photos="$MAGICID_HOME/photos"

echo "demo: drawing four photos, then magicid customize, generate and export in $MAGICID_HOME; about a minute" >&2
"$(dirname "$magicid")/python" "$root/demo/draw.py" "$photos"
"$magicid" customize "$photos" --name alice --model tiny --class-word woman --seed 7 --consent --yes
video="$("$magicid" generate --prompt "alice rides a horse along the beach at dawn" --seed 7 --quiet)"
adapter="$("$magicid" export alice --format diffusers --force --quiet)"
echo
echo "video:   $video"
echo "adapter: $adapter/pytorch_lora_weights.safetensors"
