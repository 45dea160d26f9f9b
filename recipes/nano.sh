#!/usr/bin/env bash
# Trains nano from nothing: data, codec, depth, detail, denoiser. Stop it at any time; the next call goes on.
#
#   recipes/nano.sh [FOLDER]          works in FOLDER (default: runs), writes photowalk/weights/nano
#
# PICTURES is a folder of photographs whose licence allows what you do with the weights; it shapes the codec's bases.
# RGBD is a folder of clip folders of real RGB-D video for the depth network; without it depth learns from synthetic
# places alone. Minutes are for two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-runs}
out=photowalk/weights/nano
python=${PYTHON:-.venv/bin/python}

$python -m photowalk.synthetic "$runs/clips" --worlds "${WORLDS:-200}" --first-seed 0
$python -m photowalk train codec --data "${PICTURES:?set PICTURES to a folder of photographs}" -o "$out"
$python -m photowalk train depth --data "$runs/clips" ${RGBD:+"$RGBD"} --minutes 120 --work "$runs/depth" -o "$out"
$python -m photowalk train photo_depth --data "$runs/clips" ${RGBD:+"$RGBD"} --minutes 240 --work "$runs/photo_depth" -o "$out"
$python -m photowalk train detail --data "$runs/clips" --minutes 40 --work "$runs/detail" -o "$out"
$python -m photowalk train denoiser --data "$runs/clips" --minutes 240 --work "$runs/denoiser" -o "$out"
