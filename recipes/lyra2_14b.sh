#!/usr/bin/env bash
# Trains the 14B denoiser as the paper of Lyra 2.0 tells it: 64 GPUs, a chunk each a step, behind self-augmented pasts.
# Stop it at any time; the next call goes on. It has not been run: nobody here has had 64 GPUs. Its parts are tested small.
#
#   DATA=... recipes/lyra2_14b.sh [FOLDER]      on every node; works in FOLDER (default: runs/lyra2-14b), seen by all nodes
#
# DATA      clips of 161 frames or more (the paper: 1000) with cameras and depth: clip folders, shards of them, or the published layout
# NODES     machines (default: 8), GPUS each (default: 8); HEAD is the address of the first (default: localhost)
# SHARD     GPUs that hold the weights together (default: 8, as published; 64 takes about 28 GiB less of each GPU)
#
#                      paper               released code                                     here
#   steps              7000                about 5000, by its instructions                   7000
#   batch              64                  64 GPUs of 1                                      64, whatever the GPUs
#   AdamW              3e-5, decay 0.1     3e-5, decay 1e-3, betas 0.9 0.999                 3e-5, 0.1, 0.9 0.999
#   gradient norm      -                   0.1                                               0.1
#   weights            -                   bfloat16 throughout, 58 % of them never move      float32 beside bfloat16
#   first chunks       30 %                15 % of all steps                                 30 %
#   own past           70 % of the others  35 % of all steps, noise level up to 0.5          49 % of all, up to 0.5
#   start of a clip    -                   frame 0 only                                      any frame
#   what learns        -                   all (its list of layers is undone)                all
#
# Distilling the result to four steps is not wired up at this size; `photowalk train distil` does it for nano.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-runs/lyra2-14b}
photowalk=${PHOTOWALK:-.venv/bin/photowalk}
torchrun=${TORCHRUN:-.venv/bin/torchrun}
nodes=${NODES:-8} gpus=${GPUS:-8} shard=${SHARD:-8}

$photowalk train denoiser --preset lyra2-14b --dry-run --gpus $((nodes * gpus)) --shard "$shard"
for part in wan2.1-i2v-14b wan2.1-codec umt5-xxl umt5-tokenizer clip-vit-h; do
  $photowalk weights get "$part"
done
$torchrun --nnodes "$nodes" --nproc-per-node "$gpus" --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost}:29400" \
  -m photowalk train denoiser --preset lyra2-14b --data "${DATA:?set DATA to a folder of clips}" --shard "$shard" \
  --workers 4 --on-fault skip --tensorboard --work "$runs" -o "$runs/weights"
