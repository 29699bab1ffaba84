#!/usr/bin/env bash
# Train on 2 machines with 4 GPUs each, a process a machine:
#   sbatch launch/slurm.sh
#
# Submit it in the checkout, on a disk that all machines see, after `make .venv/ready`
# and `.venv/bin/pip install 'jax[cuda12]'`.
#
# When a process ends early, all end, and the job is queued again, up to 3 times:
# training goes on after the last epoch. After --time it ends for good: submit it again.
#SBATCH --job-name=braintumor
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

export KERAS_BACKEND=jax JAX_LOCAL_DEVICE_IDS=0,1,2,3 # of a process; else JAX takes one
: "${BRAINTUMOR_DATA:?name the folder that holds Training and Testing}"

if ! srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  .venv/bin/python -m braintumor train --cluster \
  --model "${MODEL:-resnet50}" --preset full --batch-size 256; then
  if [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit 1
fi
