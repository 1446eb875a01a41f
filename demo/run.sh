#!/bin/sh
# The main job on the miniature: the album of a drawn person, customize, generate, export, and a strip to look at.
# CPU, no download, and nobody's face: who is drawn exists nowhere.
set -eu
magicid="$1"
python="$(dirname "$magicid")/python"
root="$(cd "$(dirname "$0")/.." && pwd)"
# A home of its own, whatever the user's settings say: the demo replaces files of its identity without asking.
export MAGICID_HOME="$root/demo-home"
# Tensors of a few thousand numbers: more threads mostly wait for each other, on busy cores for minutes.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
album="$MAGICID_HOME/album"
prompt="alice in a denim jacket slowly turns the head from side to side in a garden, smiling, in clear light."
second="alice in a denim jacket dances in a garden, smiling, in clear light."
person=7
seed=7
begun="$(date +%s)"

echo "demo: photos of a drawn person, magicid customize, generate and export in $MAGICID_HOME; a few minutes" >&2
"$magicid" mini photos "$album" --seed "$person" --force --quiet
"$magicid" customize "$album" --name alice --model mini --class-word woman --seed "$seed" --consent --yes
echo "demo: a video and its export; beside them the same prompts without the adapter, with stage 1's and MagicID's" >&2
# Both need one core each. Ctrl-C does not reach what a script has put in the background, so the trap ends it.
"$python" "$root/demo/strip.py" alice --album "$album" --person "$person" --prompt "$prompt" \
    --prompt "$second" --seed "$seed" --output "$MAGICID_HOME/strip.png" &
strip=$!
trap 'kill "$strip" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
video="$("$magicid" generate --prompt "$prompt" --seed "$seed" --output "$MAGICID_HOME/alice.mp4" --force --quiet)"
adapter="$("$magicid" export alice --format diffusers --force --quiet)"
wait "$strip"
echo "video:   $video"
echo "adapter: $adapter/pytorch_lora_weights.safetensors"
echo "demo: done in $(($(date +%s) - begun)) s" >&2
