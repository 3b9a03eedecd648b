#!/usr/bin/env bash
#SBATCH --job-name=infection-sweep
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
# One interval of an interval sweep a job of an array: each trains [START_HOUR, x] for its own x of HOURS. Afterwards
# analyze_interval_sweep_train.py --eval-only --mode train-test draws all of them from OUTPUT/checkpoints.
#   mkdir -p slurm_LOG
#   HOURS="7 13 19 25" CONFIG=configs/resnet50_baseline.yaml OUTPUT=outputs/sweep sbatch --array=0-3 slurm/sweep_array.sh
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=requeue.sh disable=SC1091
source "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}/slurm/requeue.sh"
read -r -a hours <<<"${HOURS:?set HOURS to the ends of the intervals, for example \"7 13 19\"}"
config="${CONFIG:?set CONFIG to a configuration file}"
output="${OUTPUT:?set OUTPUT to the directory of the sweep}"
index="${SLURM_ARRAY_TASK_ID:?submit as an array (sbatch --array=0-$((${#hours[@]} - 1))), or set SLURM_ARRAY_TASK_ID}"
hour="${hours[$index]:?SLURM_ARRAY_TASK_ID is beyond HOURS}"

run_resumable analyze_interval_sweep_train.py --config "$config" --mode train-test --start-hour "${START_HOUR:-1}" \
  --upper-hours "$hour" --output-dir "$output/hour_$hour" --checkpoint-dir "$output/checkpoints" --resume "$@"
