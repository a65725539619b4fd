#!/usr/bin/env bash
# One run on a Slurm cluster: Ray on every node of the allocation, the job on the first of them.
#
#   sbatch deploy/slurm.sh --input /data/corpus --output /data/transcripts --model /data/ctc
#   sbatch --array=1-16 deploy/slurm.sh …    # sixteen allocations fill one table, a lane each
#
# Stopped at its time limit, the same command goes on.
#SBATCH --job-name=w2vbert
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --output=w2vbert-%j.log
set -euo pipefail

lane=()
if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
    lane=(--lane "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
fi

# Others use these nodes' network: without a token anybody on it could run code as you.
RAY_AUTH_TOKEN=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname --ip-address | awk '{print $1}')
export RAY_ADDRESS="$address:$((20000 + SLURM_JOB_ID % 20000))" # two jobs may meet on a node

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_ON_NODE" --disable-usage-stats -- \
    python -m jobs.transcribe "$@" "${lane[@]}"
