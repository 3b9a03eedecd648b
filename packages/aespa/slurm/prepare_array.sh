#!/usr/bin/env bash
#SBATCH --job-name=aespa-prepare
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
# MBHSeg's volumes → slices, one share of the cases a job of an array. Finished cases are left alone.
#   mkdir -p slurm_LOG
#   VOLUMES=data/MBHSeg OUTPUT=data sbatch --array=1-4 slurm/prepare_array.sh
# Further arguments go to process_mbhseg.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
volumes="${VOLUMES:?set VOLUMES to the folder with train/ and test/}"
output="${OUTPUT:?set OUTPUT to the folder of the slices}"
index="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=1-4), or set SLURM_ARRAY_TASK_ID}"
count="${SLURM_ARRAY_TASK_MAX:-$index}"

run_resumable process_mbhseg.py -in "$volumes" -out "$output" -shard "$index/$count" "$@"
