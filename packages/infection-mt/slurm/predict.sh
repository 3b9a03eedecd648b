#!/usr/bin/env bash
#SBATCH --job-name=infection-predict
#SBATCH --output=slurm_LOG/%x_%j.out
#SBATCH --error=slurm_LOG/%x_%j.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Predict a folder of new stacks with the checkpoints of all folds.
#   mkdir -p slurm_LOG
#   MODEL_DIR=outputs/cv DATA_DIR=/data/plate2 OUTPUT=outputs/plate2 sbatch slurm/predict.sh --plate-layout mock=a4,b4 moi5=a1,b1
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
model_dir="${MODEL_DIR:?set MODEL_DIR to the directory of the folds}"
data_dir="${DATA_DIR:?set DATA_DIR to the folder of stacks}"
output="${OUTPUT:?set OUTPUT to the directory of the results}"

run_resumable validate_on_run2.py --model-dir "$model_dir" --data-dir "$data_dir" --output-dir "$output" --resume "$@"
