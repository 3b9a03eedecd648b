#!/usr/bin/env bash
#SBATCH --job-name=til-mtl-fold
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
# Multi-task against single-task: all three networks on one fold a job; the job that finds every fold finished writes the
# table with paired intervals.
#   mkdir -p slurm_LOG
#   CONFIG=config/mtl.yaml FOLDS=5 OUTPUT=runs/compare sbatch --array=1-5 slurm/compare_array.sh --data_dir data/tiger-patches
# Further arguments go to `til-mtl compare`.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
output="${OUTPUT:?set OUTPUT to the folder of the comparison}"
fold="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=1-5), or set SLURM_ARRAY_TASK_ID}"

run_resumable -m til_mtl.cli compare --folds "${FOLDS:-5}" --only "$fold" --resume \
  --config "${CONFIG:-config/mtl.yaml}" --output "$output" "$@"
