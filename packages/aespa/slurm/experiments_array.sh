#!/usr/bin/env bash
#SBATCH --job-name=aespa-experiment
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
# The original's experiments, one run a job of an array: 1 to 8 of bash_priority.sh, 1 to 12 of bash_ablation.sh, 1 to 20
# of bash.sh. Finished runs are left alone, stopped ones are queued again and go on.
#   mkdir -p slurm_LOG
#   GROUP=main sbatch --array=1-8 slurm/experiments_array.sh -data data -sam_ckpt checkpoint/medsam_vit_b.pth
# Further arguments go to `aespa experiments`.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
group="${GROUP:?set GROUP to main, ablations or all}"
index="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=1-8), or set SLURM_ARRAY_TASK_ID}"

run_resumable -m aespa.cli experiments "$group" -only "$index" "$@"
