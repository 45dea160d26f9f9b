#!/usr/bin/env bash
# Trains nano from nothing: data, codec, depth, denoiser, detail, splats. Stop it at any time; the next call goes on.
#
#   PICTURES=... FEATURES=... recipes/nano.sh [FOLDER]        works in FOLDER (default: runs), writes photowalk/weights/nano
#
# PICTURES  a folder of photographs whose licence allows what you do with the weights; they shape the codec's bases
# FEATURES  SqueezeNet 1.1 without its classifier as safetensors: what the depth networks' picture encoder starts from
# SKIES     a folder of pictures of nothing but sky; they stand behind synthetic places (optional)
# RGBD      an RGB-D walk for the depth networks, frames in RGBD_FRAMES (optional; without it depth knows synthetic places)
# DISTIL=1  distils the denoiser at the end. Nano's weights are not: it tells clean latents and is sampled in four steps
#           as it is (docs/training_log.md)
# RECIPE_SCALE=tiny  tries every command with next to no data and two steps, in minutes; the weights go to FOLDER/weights
#
# Minutes are of one core for each part; `photowalk train` may be called with more.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-runs}
photowalk=${PHOTOWALK:-.venv/bin/photowalk}
python=${PYTHON:-.venv/bin/python}
walks=62 glimpses=400 generated=8
out=photowalk/weights/nano
minutes() { echo --minutes "$1"; }
if [ "${RECIPE_SCALE:-}" = tiny ]; then
  walks=1 glimpses=2 generated=1 out=$runs/weights # what a part takes from parts before it is then the package's
  minutes() { echo --steps 2; }
fi

$python -m photowalk.synthetic "$runs/walks" --worlds "${WALKS:-$walks}" --first-seed 0
$python -m photowalk.synthetic "$runs/glimpses" --worlds "${GLIMPSES:-$glimpses}" --every 16 --first-seed 10000
real=()
if [ -n "${RGBD:-}" ]; then
  [ -d "$runs/rgbd" ] || $photowalk data prepare "$RGBD" -o "$runs/rgbd" --frames "${RGBD_FRAMES:-::2}" --clip-frames 5
  real=("$runs/rgbd" "$runs/rgbd") # twice, since one real room stands beside hundreds of synthetic ones
fi
skies=(${SKIES:+--skies "$SKIES"})

$photowalk train codec --data "${PICTURES:?set PICTURES to a folder of photographs}" -o "$out"
$photowalk train depth --data "$runs/glimpses" "$runs/walks" "${real[@]}" "${skies[@]}" \
  --features "${FEATURES:?set FEATURES to the SqueezeNet features}" $(minutes 75) --work "$runs/depth" -o "$out"

# The denoiser: true pasts first; then, for a third of the samples, pasts that it drew itself (self-augmentation), and
# every walk once more as another recording of it.
$photowalk train denoiser --data "$runs/walks" $(minutes 75) --work "$runs/denoiser" -o "$runs/denoiser/weights"
$photowalk train denoiser --data "$runs/walks" --start "$runs/denoiser/weights" --retakes 1 --own-past 0.3 $(minutes 75) \
  --work "$runs/denoiser_own" -o "$out"
if [ -n "${DISTIL:-}" ]; then
  $photowalk train distil --data "$runs/walks" --teacher "$out" --retakes 1 $(minutes 30) --work "$runs/distil" -o "$out"
fi

$photowalk train detail --data "$runs/walks" $(minutes 30) --work "$runs/detail" -o "$out"
# The splat head: exact walks first, then walks that nano generates, with the weights made above.
$python -m photowalk.train.generated_walks "$runs/walks" "$runs/generated" --every 4 --count "${GENERATED:-$generated}"
$photowalk train splats --data "$runs/walks" $(minutes 30) --work "$runs/splats" -o "$runs/splats/weights"
$photowalk train splats --data "$runs/walks" --generated "$runs/generated" --start "$runs/splats/weights" $(minutes 30) \
  --work "$runs/splats_generated" -o "$out"
