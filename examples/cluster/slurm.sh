#!/usr/bin/env bash
# Ray over the machines of one SLURM job, then a command on it. From a checkout on a shared file system:
#
#   sbatch --nodes=2 examples/cluster/slurm.sh \
#     python -m tuning.sweep_k --resume-or-start --out runs/sweep-k --address auto --gpus-per-trial 1
#   sbatch --nodes=2 examples/cluster/slurm.sh \
#     python -m lasat_ray.train --resume-or-start --out runs/first --address auto --num-workers 2 --device cuda
#
# Five minutes before its time limit the command saves and the job goes back into the queue; SLURM does so
# itself after preemption or the loss of a machine. Each time the same command goes on (--resume-or-start).
#SBATCH --job-name=lasat
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail

if (($# == 0)); then
  echo "usage: sbatch examples/cluster/slurm.sh COMMAND..." >&2
  exit 2
fi

# One key for this job's cluster, readable by its user alone: who lacks it cannot run code there.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$PWD/.ray-token-$SLURM_JOB_ID"
(umask 077 && head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

port=$((20000 + SLURM_JOB_ID % 20000))
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_ip=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" hostname --ip-address | awk '{print $1}')
limits=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_PER_NODE:-0}")

# --overlap: the command itself runs beside Ray on the first machine.
srun --overlap --nodes=1 --ntasks=1 -w "${nodes[0]}" \
  ray start --head --node-ip-address="$head_ip" --port="$port" "${limits[@]}" --block &
for _ in $(seq 60); do
  if ray health-check --address "$head_ip:$port" >/dev/null 2>&1; then break; fi
  sleep 2
done
if ((${#nodes[@]} > 1)); then
  srun --overlap --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --exclude="${nodes[0]}" \
    ray start --address="$head_ip:$port" "${limits[@]}" --block &
  sleep 15
fi

export RAY_ADDRESS="$head_ip:$port"
srun --overlap --nodes=1 --ntasks=1 -w "${nodes[0]}" "$@" &
command=$!
back_into_the_queue() {
  kill -TERM "$command" 2>/dev/null || true # srun hands it on: the round is finished and saved
  wait "$command" || true
  scontrol requeue "$SLURM_JOB_ID"
  exit 143
}
trap back_into_the_queue USR1
wait "$command"
