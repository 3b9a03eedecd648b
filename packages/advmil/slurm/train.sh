#!/usr/bin/env bash
#SBATCH --job-name=advmil-train
#SBATCH --output=slurm_LOG/%x_%j.out
#SBATCH --error=slurm_LOG/%x_%j.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One run, or all runs of a grid one after the other, as a job that survives its time limit: the run saves its state, is
# queued again and resumes; finished runs of a grid are left alone.
#   mkdir -p slurm_LOG
#   CONFIG=config/cfg_nlst.yaml HANDLER=adv sbatch slurm/train.sh --multi_run
# Further arguments go to main.py. Partition and account are given to sbatch. Also runs with plain bash.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
config="${CONFIG:?set CONFIG to a configuration file, for example config/cfg_nlst.yaml}"

run_resumable main.py --config "$config" --handler "${HANDLER:-adv}" --resume "$@"
