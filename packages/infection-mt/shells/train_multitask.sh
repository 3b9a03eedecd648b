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
#SBATCH --requeue
#SBATCH --open-mode=append
# Train the multi-task model on a SLURM cluster, or in the foreground with plain bash.
#   mkdir -p slurm_LOG && sbatch shells/train_multitask.sh [further flags of train_multitask.py]
# CONFIG names the configuration (default configs/multitask_example.yaml), OUTPUT the run directory: with it, a job that the
# time limit stopped is queued again and resumes. PYTHON is the interpreter.
set -euo pipefail
home="$(dirname "${BASH_SOURCE[0]}")/.." # of the package; a job of sbatch runs a copy of this file elsewhere
[[ -f "$home/pyproject.toml" ]] || home="${SLURM_SUBMIT_DIR:?call this from its folder}"
cd "$home"
run=(--config "${CONFIG:-configs/multitask_example.yaml}")
if [[ -n "${OUTPUT:-}" ]]; then run+=(--output "$OUTPUT" --resume); else export MAX_REQUEUES=0; fi
export SUBMIT="${SUBMIT:-no}"
exec "${PYTHON:-python}" -m medshared.launch --name multitask_cell --gpus 1 --distributed -- train_multitask.py "${run[@]}" "$@"
