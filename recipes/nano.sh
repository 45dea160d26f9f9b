#!/usr/bin/env bash
# Trains nano from nothing: data, codec, depth, detail, denoiser. Stop it at any time; the next call goes on.
#
#   PICTURES=... FEATURES=... recipes/nano.sh [FOLDER]        works in FOLDER (default: runs), writes photowalk/weights/nano
#
# PICTURES  a folder of photographs whose licence allows what you do with the weights; they shape the codec's bases
# FEATURES  SqueezeNet 1.1 without its classifier as safetensors: what the depth networks' picture encoder starts from
# SKIES     a folder of pictures of nothing but sky; they stand behind synthetic places (optional)
# RGBD      an RGB-D walk for the depth networks, frames in RGBD_FRAMES (optional; without it depth knows synthetic places)
#
# Minutes are of one core for each part; `photowalk train` may be called with more.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-runs}
out=photowalk/weights/nano
photowalk=${PHOTOWALK:-.venv/bin/photowalk}
python=${PYTHON:-.venv/bin/python}

$python -m photowalk.synthetic "$runs/walks" --worlds "${WALKS:-62}" --first-seed 0
$python -m photowalk.synthetic "$runs/glimpses" --worlds "${GLIMPSES:-400}" --every 16 --first-seed 10000
real=()
if [ -n "${RGBD:-}" ]; then
  [ -d "$runs/rgbd" ] || $photowalk data prepare "$RGBD" -o "$runs/rgbd" --frames "${RGBD_FRAMES:-::2}" --clip-frames 5
  real=("$runs/rgbd" "$runs/rgbd") # twice, since one real room stands beside hundreds of synthetic ones
fi
skies=(${SKIES:+--skies "$SKIES"})

$photowalk train codec --data "${PICTURES:?set PICTURES to a folder of photographs}" -o "$out"
$photowalk train depth --data "$runs/glimpses" "$runs/walks" "${real[@]}" "${skies[@]}" \
  --features "${FEATURES:?set FEATURES to the SqueezeNet features}" --minutes 75 --work "$runs/depth" -o "$out"
$photowalk train denoiser --data "$runs/walks" --minutes 75 --work "$runs/denoiser" -o "$out"
$photowalk train detail --data "$runs/walks" --minutes 30 --work "$runs/detail" -o "$out"
# The splat head: exact walks first, then walks that nano generates, with the weights made above.
$python -m photowalk.train.generated_walks "$runs/walks" "$runs/generated" --every 4 --count "${GENERATED:-8}"
$photowalk train splats --data "$runs/walks" --minutes 30 --work "$runs/splats" -o "$runs/splats/weights"
$photowalk train splats --data "$runs/walks" --generated "$runs/generated" --start "$runs/splats/weights" --minutes 30 \
  --work "$runs/splats_generated" -o "$out"
