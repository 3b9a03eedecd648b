#!/usr/bin/env bash
#SBATCH --job-name=advmil-prepare
#SBATCH --output=slurm_LOG/%x_%A_%a.out
#SBATCH --error=slurm_LOG/%x_%A_%a.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Slides → features, one share of the slides a job of an array. Jobs may run side by side on one folder; finished slides
# are left alone, so that a job which is queued again goes on where it stopped.
#   mkdir -p slurm_LOG
#   SLIDES=data/nlst/slides OUTPUT=data/nlst/processed sbatch --array=1-8 slurm/prepare_array.sh --weights resnet50.pth
# Further arguments go to `advmil prepare`.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
slides="${SLIDES:?set SLIDES to the folder of slides}"
output="${OUTPUT:?set OUTPUT to the folder of tiles and features}"
index="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=1-8), or set SLURM_ARRAY_TASK_ID}"
count="${SLURM_ARRAY_TASK_MAX:-$index}"

run_resumable -m advmil.cli prepare "$slides" --output "$output" --shard "$index/$count" "$@"
