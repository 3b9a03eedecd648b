#!/usr/bin/env bash
#SBATCH --job-name=infection-fold
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
# One fold a job of an array; the job that finishes last writes the summary.
#   mkdir -p slurm_LOG
#   FOLDS=5 CONFIG=configs/multitask_example.yaml OUTPUT=outputs/cv sbatch --array=1-5 slurm/folds_array.sh
# SCRIPT is train_multitask_cv.py unless set (train_regression_cv.py takes the same flags).
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
script="${SCRIPT:-train_multitask_cv.py}"
folds="${FOLDS:?set FOLDS to the number of folds, the same as the length of the array}"
config="${CONFIG:?set CONFIG to a configuration file}"
output="${OUTPUT:?set OUTPUT to the directory of all folds}"
fold="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=1-$folds), or set SLURM_ARRAY_TASK_ID}"

run_resumable "$script" --config "$config" --num-folds "$folds" --fold "$fold" --output "$output" --resume "$@"
