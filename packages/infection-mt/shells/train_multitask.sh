#!/usr/bin/env bash
#SBATCH --job-name=multitask_cell
#SBATCH --output=slurm_LOG/multitask_%j.out
#SBATCH --error=slurm_LOG/multitask_%j.err
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --partition=gpu
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
# Train the multi-task model on a SLURM cluster, or in the foreground with plain bash.
#   mkdir -p slurm_LOG && sbatch shells/train_multitask.sh [further flags of train_multitask.py]
# CONFIG names the configuration (default configs/multitask_example.yaml), PYTHON the interpreter.
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
mkdir -p slurm_LOG
config="${CONFIG:-configs/multitask_example.yaml}"
python="${PYTHON:-python}"

echo "start $(date '+%Y-%m-%d %H:%M:%S') on $(hostname): $config"
status=0
"$python" train_multitask.py --config "$config" "$@" &
worker=$!
# SLURM warns two minutes before the time limit; the run then saves its state and stops.
trap 'kill -USR1 "$worker"' USR1 TERM
wait "$worker" || status=$?
while kill -0 "$worker" 2>/dev/null; do
  status=0
  wait "$worker" || status=$?
done
echo "end $(date '+%Y-%m-%d %H:%M:%S'), exit code $status"
exit "$status"
