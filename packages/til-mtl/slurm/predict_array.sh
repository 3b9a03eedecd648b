#!/usr/bin/env bash
#SBATCH --job-name=til-mtl-predict
#SBATCH --output=slurm_LOG/%x_%A_%a.out
#SBATCH --error=slurm_LOG/%x_%A_%a.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Slides → maps, cells and TIL scores, one share of the slides a job of an array. Jobs may run side by side on one folder;
# finished slides are left alone, so that a job which is queued again goes on where it stopped.
#   mkdir -p slurm_LOG
#   CHECKPOINT=runs/mtl/checkpoints/best.pt SLIDES=data/wsitils/images OUTPUT=runs/scores sbatch --array=1-8 slurm/predict_array.sh
# Further arguments go to TIL_prediction/predict.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
checkpoint="${CHECKPOINT:?set CHECKPOINT to the trained network}"
slides="${SLIDES:?set SLIDES to the folder of slides}"
output="${OUTPUT:?set OUTPUT to the folder of the results}"
index="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=1-8), or set SLURM_ARRAY_TASK_ID}"
count="${SLURM_ARRAY_TASK_MAX:-$index}"

run_resumable TIL_prediction/predict.py --checkpoint "$checkpoint" --slides "$slides" --out "$output" \
  --shard "$index/$count" "$@"
