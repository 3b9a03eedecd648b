#!/usr/bin/env bash
#SBATCH --job-name=aespa-predict
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
# Images and volumes → masks, probabilities and entropy, one share a job of an array. Jobs may run side by side on one
# folder; what is finished is left alone, so that a job which is queued again goes on where it stopped.
#   mkdir -p slurm_LOG
#   CHECKPOINT=runs/aespa/checkpoints/best.pt IMAGES=data/ct OUTPUT=runs/masks sbatch --array=1-8 slurm/predict_array.sh
# Further arguments go to predict.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
checkpoint="${CHECKPOINT:?set CHECKPOINT to the trained network}"
images="${IMAGES:?set IMAGES to an image, a volume or a folder of them}"
output="${OUTPUT:?set OUTPUT to the folder of the results}"
index="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=1-8), or set SLURM_ARRAY_TASK_ID}"
count="${SLURM_ARRAY_TASK_MAX:-$index}"

run_resumable predict.py "$images" -weights "$checkpoint" -output "$output" -shard "$index/$count" "$@"
