#!/usr/bin/env bash
#SBATCH --job-name=spars-predict
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
# Volumes → masks and probabilities in their own geometry. Volumes that are done are left alone, so that a job which is
# queued again goes on where it stopped.
#   mkdir -p slurm_LOG
#   AGENT=runs/game IMAGES=data/Task03_Liver/imagesTs OUTPUT=runs/predictions sbatch slurm/predict.sh
# Further arguments go to `spars predict`.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
agent="${AGENT:?set AGENT to the run directory of the training}"
images="${IMAGES:?set IMAGES to a volume or a folder of volumes}"
output="${OUTPUT:?set OUTPUT to the folder of the results}"

run_resumable -m spars.cli predict "$images" --agent "$agent" --output "$output" "$@"
