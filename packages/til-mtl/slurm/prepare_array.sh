#!/usr/bin/env bash
#SBATCH --job-name=til-mtl-prepare
#SBATCH --output=slurm_LOG/%x_%A_%a.out
#SBATCH --error=slurm_LOG/%x_%A_%a.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# The TIGER download → patches, one share of the regions a job of an array; run once more without an array at the end, which
# writes the folders and the manifest.
#   mkdir -p slurm_LOG
#   TIGER=data/tiger OUTPUT=data/tiger-patches sbatch --array=1-4 slurm/prepare_array.sh --all-folds
#   python prepare_tiger.py --tiger data/tiger --out data/tiger-patches --all-folds
# Further arguments go to prepare_tiger.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
tiger="${TIGER:?set TIGER to the root of the download}"
output="${OUTPUT:?set OUTPUT to the folder of the patches}"
index="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=1-4), or set SLURM_ARRAY_TASK_ID}"
count="${SLURM_ARRAY_TASK_MAX:-$index}"

run_resumable prepare_tiger.py --tiger "$tiger" --out "$output" --shard "$index/$count" "$@"
