#!/bin/bash
# A corpus over an array of tasks, each with a GPU. Copy it, set the variables, and submit it:
#
#   sbatch slurm.sh                # all shards
#   sbatch --array=3 slurm.sh     # shard 3 again: it continues, or finds that it is done
#
# As many tasks as SHARDS; the number stays the same for one corpus.
#SBATCH --job-name=actvec
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=actvec-%A-%a.log
set -euo pipefail

SHARDS=${SHARDS:-8}
CORPUS=${CORPUS:-corpus.jsonl}
OUT=${OUT:-out}
MODEL=${MODEL:-EleutherAI/pythia-12b}
shard=$SLURM_ARRAY_TASK_ID/$SHARDS

# 1 means that documents failed or were skipped, and the folders list them.
actvec local mean "$CORPUS" --shard "$shard" --model "$MODEL" \
  --name corpus --out "$OUT/mean" || [ $? = 1 ]
actvec local vectors "$CORPUS" --shard "$shard" --model "$MODEL" \
  --mode short --out "$OUT/vectors" || [ $? = 1 ]
