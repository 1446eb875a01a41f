#!/bin/sh
# The main job on a small embedded model with random weights: customize, generate, export. CPU, no download.
# The person is drawn (demo/draw.py): nobody's face. What you see is the machinery; the videos are noise.
set -eu
magicid="$1"
here="$(cd "$(dirname "$0")" && pwd)"
export MAGICID_HOME="${MAGICID_HOME:-$here/../demo-home}"
photos="$MAGICID_HOME/photos"

"$(dirname "$magicid")/python" "$here/draw.py" "$photos"
"$magicid" customize "$photos" --name alice --model tiny --class-word woman --seed 7 --consent --yes
video="$("$magicid" generate --prompt "alice rides a horse along the beach at dawn" --seed 7 --quiet)"
adapter="$("$magicid" export alice --format diffusers --force --quiet)"
echo
echo "video:   $video"
echo "adapter: $adapter"
