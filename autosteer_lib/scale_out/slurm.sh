#!/bin/bash
# A Ray of all nodes of a SLURM allocation, and `make reproduce` on it. From the checkout, which all nodes must see at
# the same path (a shared home or project folder), after `make setup` and `make fetch PROFILE=paper` on a login node:
#
#     sbatch --nodes=2 --gpus-per-node=4 autosteer_lib/scale_out/slurm.sh PROFILE=paper
#
# What follows the script's name goes to make. When the time limit ends the job, submit it again: it goes on from there.
#SBATCH --job-name=autosteer
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=24:00:00

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
RAY="$PWD/.venv/bin/ray" PY="$PWD/.venv/bin/python"
[ -x "$RAY" ] || { echo "no $RAY here: run \`make setup\` first, and sbatch from the checkout" >&2; exit 2; }

# Nothing is to leave the cluster, and two jobs on one node must not meet in /tmp/ray.
export RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1 PYTHONPATH="$PWD"
# A secret of this job's own: who reaches a Ray without one can run anything there. Ray would take one that it finds at
# home for the head alone (2.60), and then turn the other nodes away.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$("$PY" -c 'import secrets; print(secrets.token_hex(32))')
FOLDER="/tmp/ray-$SLURM_JOB_ID"           # short: the paths of Ray's sockets may have 107 characters

# awk reads to the end, where `head` would close the pipe on scontrol, and pipefail end the job
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')
HEAD_IP=$(srun --nodes=1 --ntasks=1 --nodelist="$HEAD" hostname --ip-address | awk '{ print $1 }')
PORT=$((20000 + SLURM_JOB_ID % 20000))     # its own for every job, should two share the head's node
GPUS=${SLURM_GPUS_ON_NODE:-0}

# The notebooks' own process fits the defences and so holds a copy of the model, on the head's first card. With more than
# one card that one is kept from Ray; a single card must have room for two copies.
HEAD_GPUS=$GPUS HEAD_CARDS=${CUDA_VISIBLE_DEVICES:-}
if [ "$GPUS" -gt 1 ]; then
    HEAD_GPUS=$((GPUS - 1))
    HEAD_CARDS=$(echo "${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((GPUS - 1)))}" | cut -d, -f2-)
fi

# --block: the step lives as long as Ray does, so SLURM ends both together and leaves nothing behind.
srun --nodes=1 --ntasks=1 --nodelist="$HEAD" --overlap env CUDA_VISIBLE_DEVICES="$HEAD_CARDS" \
    "$RAY" start --head --node-ip-address="$HEAD_IP" --port="$PORT" --num-cpus="$SLURM_CPUS_PER_TASK" \
    --num-gpus="$HEAD_GPUS" --dashboard-host=127.0.0.1 --temp-dir="$FOLDER" --block &
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$HEAD" --overlap \
        "$RAY" start --address="$HEAD_IP:$PORT" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$GPUS" --block &
fi

# All nodes, before the run counts its actors: one that is still starting would be left idle.
NODES_UP='import sys
from autosteer_lib.scale_out.cluster import Cluster, connect, import_ray
connect(Cluster(address=sys.argv[1]))
print(sum(node["Alive"] for node in import_ray().nodes()))'
UP=0
for _ in $(seq 60); do
    UP=$("$PY" -c "$NODES_UP" "$HEAD_IP:$PORT" 2>/dev/null || echo 0)
    [ "$UP" -ge "$SLURM_JOB_NUM_NODES" ] && break
    sleep 5
done
[ "$UP" -gt 0 ] || { echo "Ray did not start on $HEAD; see the messages above" >&2; exit 2; }
echo "Ray at $HEAD_IP:$PORT: $UP of $SLURM_JOB_NUM_NODES nodes; its dashboard, from your own machine:"
echo "    ssh -L 8265:127.0.0.1:8265 $HEAD      then http://127.0.0.1:8265"

# The batch script runs on the first node, which is the head: the notebooks join Ray there.
make reproduce RAY_ADDRESS="$HEAD_IP:$PORT" "$@"
