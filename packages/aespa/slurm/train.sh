#!/usr/bin/env bash
#SBATCH --job-name=aespa-train
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
# One training, as a job that survives its time limit: the run saves its state, is queued again and resumes.
#   mkdir -p slurm_LOG
#   CONFIG=config/aespa.yaml OUTPUT=runs/aespa sbatch slurm/train.sh -b 32
# Further arguments go to train.py. Partition and account are given to sbatch. Also runs with plain bash.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
config="${CONFIG:?set CONFIG to a configuration file, for example config/aespa.yaml}"
output="${OUTPUT:?set OUTPUT to the run directory}"

run_resumable train.py -config "$config" -output "$output" -resume "$@"
