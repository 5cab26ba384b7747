# shellcheck shell=bash disable=SC2034
# What differs between clusters. Copy it to site.sh beside finetune.sh (or anywhere, and set
# BIGFT_SITE) and keep what yours needs. finetune.sh sources it on the batch host, once per start.
# Options of sbatch do not belong here: give them on the command line, or put them into your
# shell's profile, as SBATCH_PARTITION=gpu, SBATCH_ACCOUNT=my-project, SBATCH_QOS=... .

# --- Software: after this, `bigft` must be found. ---
# module load python/3.11 cuda/12.4
# source "$HOME/venvs/bigft/bin/activate"

# --- Network: the interface that joins the nodes (`ip -brief address`). ---
# export NCCL_SOCKET_IFNAME=ib0
# export GLOO_SOCKET_IFNAME=ib0
# export MASTER_ADDR=$(hostname)-ib   # where the first node's name leads to another network

# --- Storage: caches that all nodes see, and nodes without a way to the internet. ---
# export HF_HOME=/shared/$USER/huggingface
# export HF_HUB_OFFLINE=1
# export BIGFT_CACHE=/shared/$USER/bigft     # prepared data; ~/.cache/bigft where nothing is said

# --- A container: words put before every bigft; or, where a plug-in takes the image, options of
# srun (they start with a dash). bigft must be inside the image. ---
# in_container=(apptainer exec --nv --bind /shared /shared/images/bigft.sif)
# in_container=(enroot start --rw --mount /shared:/shared bigft)
# in_container=(--container-image=/shared/images/bigft.sqsh --container-mounts=/shared:/shared)

# --- torchrun, started once per node, starts the ranks: docs/slurm.md says what that costs. ---
# LAUNCHER=torchrun
