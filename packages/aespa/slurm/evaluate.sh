#!/usr/bin/env bash
#SBATCH --job-name=aespa-evaluate
#SBATCH --output=slurm_LOG/%x_%j.out
#SBATCH --error=slurm_LOG/%x_%j.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# A checkpoint → tables, summary and a page.
#   mkdir -p slurm_LOG
#   CONFIG=config/aespa.yaml CHECKPOINT=runs/aespa/checkpoints/best.pt OUTPUT=runs/aespa-test sbatch slurm/evaluate.sh
# Further arguments go to val.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
config="${CONFIG:?set CONFIG to the configuration of the training}"
checkpoint="${CHECKPOINT:?set CHECKPOINT to the trained network}"
output="${OUTPUT:?set OUTPUT to the folder of the results}"

run_resumable val.py -config "$config" -weights "$checkpoint" -output "$output" "$@"
