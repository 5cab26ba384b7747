#!/usr/bin/env bash
# A real Slurm cluster on this machine, in one directory. Used by the tests of this folder, and by hand:
#
#   cluster.sh install             Debian's Slurm, munge, sshd and pdsh, where one is missing (root)
#   cluster.sh start DIR [NODES]   nodes n1..n4; returns when all are idle
#   cluster.sh on DIR COMMAND ...  sbatch, squeue, ... as on the login node
#   cluster.sh at DIR n2 COMMAND   as on that node
#   cluster.sh kill-node DIR n2    the node loses power: every process of it is gone
#   cluster.sh cut DIR n2          its network cable is pulled; `fix DIR n2` plugs it in
#   cluster.sh revive DIR n2       starts a killed node again
#   cluster.sh set DIR KEY=VALUE   slurm.conf with these, until the next `set DIR ...`
#   cluster.sh stop DIR            ends every process; DIR stays, with all logs
#
# Where the machine allows namespaces, the cluster lives in a PID, network, mount and UTS namespace of
# its own, and each node in another set inside, joined by a bridge: names and addresses can be the same
# in every cluster, and when the first process is killed, the kernel takes all the rest along. Elsewhere
# the nodes are several slurmd on this host (DIR/mode says "host"); a cable cannot be pulled there.
#
# Partitions: low (default; preempted by requeueing, 30 s of grace) and high.
set -euo pipefail

PACKAGES=(slurmctld slurmd slurm-client munge openssh-server pdsh iproute2 procps)
PROGRAMS=(slurmctld slurmd sbatch munged sshd pdsh ip pgrep)
first_port=6817
PATH=$PATH:/usr/sbin:/sbin
self=$(realpath -- "${BASH_SOURCE[0]}")

fail() {
  printf 'cluster.sh: %s\n' "$*" >&2
  exit 1
}

missing() {
  for program in "${PROGRAMS[@]}"; do
    command -v "$program" >/dev/null || printf ' %s' "$program"
  done
}

install() {
  [ -n "$(missing)" ] || return 0
  command -v apt-get >/dev/null || fail "missing:$(missing); only Debian's packages are known here: ${PACKAGES[*]}"
  [ "$(id -u)" = 0 ] || fail "missing:$(missing); as root: $self install"
  # The packages would start their daemons, with this machine as the cluster.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${PACKAGES[@]}" >&2
}

# -- the files of a cluster ------------------------------------------------------------------------

# Of node number $1: its address (254: of the login node), and its port (0: of slurmctld).
address() { if [ "$mode" = host ]; then echo 127.0.0.1; else echo "10.77.0.$1"; fi; }
port() { echo $((first_port + $1)); }
# What `hostname` says on node $1.
host_of() { if [ "$mode" = host ]; then hostname; else echo "$1"; fi; }

choose_ports() { # for host mode below the ephemeral ones
  local number
  [ "$mode" = host ] || return 0
  first_port=$((30000 + $(cksum <<<"$dir" | cut -d' ' -f1) % 270 * 10))
  for number in $(seq 0 "$nodes"); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$(port "$number")") 2>/dev/null; then
      fail "port $(port "$number") is taken: use another directory"
    fi
  done
}

# What `set` may change. A request to end tasks is answered when they have ended; after MessageTimeout
# it comes again, a minute later, and then hits the requeued job's step: same job, same number.
DEFAULTS=(SlurmdTimeout=30 KillWait=20 MessageTimeout=30)

changing_options() { # KEY=VALUE ...
  local option
  for option in "${DEFAULTS[@]}"; do
    [[ " $*" = *" ${option%%=*}="* ]] || printf '%s\n' "$option"
  done
  printf '%s\n' "$@"
}

write_files() {
  local number
  mkdir -p "$dir"/{munge,state,tmp,etc}
  chmod 755 "$dir" "$dir/munge"
  (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
  changing_options >"$dir/etc/changing.conf"
  printf 'CgroupPlugin=cgroup/v1\n' >"$dir/etc/cgroup.conf" # or slurmd dies where none is mounted
  printf '127.0.0.1 localhost\n%s login\n' "$(address 254)" >"$dir/hosts"
  {
    cat <<CONF
ClusterName=bigft
SlurmctldHost=$(host_of login)($(address 254))
SlurmctldPort=$(port 0)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
# A requeued job starts again after cred_expire: 120 s by default, 5 at least.
AuthInfo=cred_expire=5,socket=$dir/munge/socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdSpoolDir=$dir/%n/spool
SlurmdPidFile=$dir/%n/slurmd.pid
SlurmdLogFile=$dir/%n/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
MinJobAge=86400
PropagateResourceLimits=NONE
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
Include $dir/etc/changing.conf
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
CONF
    # In host mode job ids differ between clusters, since training's port follows from the id.
    [ "$mode" = namespaces ] || printf 'FirstJobId=%d\n' "$first_port"
    for number in $(seq "$nodes"); do
      mkdir -p "$dir/n$number/spool"
      printf 'NodeName=n%d NodeHostname=%s NodeAddr=%s Port=%s CPUs=2 RealMemory=2000\n' "$number" \
        "$(host_of "n$number")" "$(address "$number")" "$(port "$number")"
      printf '%s n%d\n' "$(address "$number")" "$number" >>"$dir/hosts"
    done
  } >"$dir/etc/slurm.conf"
  printf '%s\n' "$mode" >"$dir/mode"
}

# -- starting: login node, then nodes --------------------------------------------------------------

daemons() { # of the login node
  munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
    --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
  slurmctld -f "$SLURM_CONF"
}

start_node() { # n2
  if [ "$mode" = host ]; then
    SLURMD_NODENAME=$1 slurmd -f "$SLURM_CONF" -N "$1"
    return
  fi
  local first
  unshare --mount --propagation slave --uts --net --pid --fork --mount-proc --kill-child \
    bash "$self" _node "$dir" "$1" </dev/null >"$dir/$1/log" 2>&1 &
  echo $! >"$dir/$1/pid"
  until first=$(pgrep -P $!); do sleep 0.02; done
  ip link add "$1" type veth peer name eth0 netns "$first"
  ip link set "$1" master bridge up
}

_node() { # the first process of node $1
  hostname "$1"
  until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
  ip link set lo up
  ip address add "$(address "${1#n}")/24" dev eth0
  ip link set eth0 up
  slurmd -f "$SLURM_CONF" -N "$1"
  forever
}

_login() { # the first process of the cluster
  # What is mounted here later (a small file system for a test) is seen by the nodes.
  mount --make-rshared /
  mount --bind "$dir/hosts" /etc/hosts
  mount -t tmpfs tmpfs /dev/shm
  mount -t tmpfs tmpfs /run
  hostname login
  ip link set lo up
  ip link add bridge type bridge
  ip address add "$(address 254)/24" dev bridge
  ip link set bridge up
  daemons
  local number
  for number in $(seq "$nodes"); do start_node "n$number"; done
  forever
}

# As the first process of a PID namespace bash also reaps the orphans.
forever() { while :; do sleep 1000 & wait $! || true; done; }

start() {
  [ -z "$(missing)" ] || fail "missing:$(missing); as root: $self install"
  [ -z "$(ls -A "$dir")" ] || fail "not empty: $dir"
  case $dir in *[[:space:]]*) fail "slurm.conf takes no path with a space: $dir" ;; esac
  [ ${#dir} -le 80 ] || fail "a path of over 80 characters is too long for its sockets: $dir"
  mode=namespaces
  unshare --mount --uts --net --pid --fork --mount-proc ip link add bridge type bridge 2>/dev/null || mode=host
  [ "${CLUSTER_MODE:-}" != host ] || mode=host
  choose_ports
  write_files
  trap '[ $? = 0 ] || stop' EXIT
  if [ "$mode" = host ]; then
    daemons
    for number in $(seq "$nodes"); do start_node "n$number"; done
  else
    # setsid: a Ctrl-C is for who started it.
    setsid unshare --mount --propagation private --uts --net --pid --fork --mount-proc --kill-child \
      bash "$self" _login "$dir" "$nodes" </dev/null >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
  fi
  local gone=$((SECONDS + 60))
  until [ "$(on sinfo -h -p low -t idle -o %D 2>/dev/null)" = "$nodes" ]; do
    if [ $SECONDS -ge $gone ]; then
      tail -n 5 "$dir"/log "$dir"/*.log "$dir"/n*/{log,slurmd.log} >&2 2>/dev/null || true
      fail "the nodes were not idle within a minute; logs: $dir"
    fi
    sleep 0.2
  done
}

# -- a running cluster -----------------------------------------------------------------------------

first() { # process of the cluster, as this side of its PID namespace numbers it
  pgrep -P "$(cat "$dir/pid")" -f "_login $dir "
}

processes() { # of host mode: all that have this cluster's slurm.conf, [on node $1]
  local file
  for file in /proc/[0-9]*/environ; do
    if grep -zqxF "SLURM_CONF=$SLURM_CONF" "$file" 2>/dev/null &&
      { [ -z "${1:-}" ] || grep -zqxF "SLURMD_NODENAME=$1" "$file" 2>/dev/null; }; then
      file=${file%/environ}
      printf '%s\n' "${file#/proc/}"
    fi
  done
}

enter=(nsenter --mount --uts --net --pid)
# shellcheck disable=SC2016  # expanded by that shell, once it is there
here=(bash -c 'cd -- "$0" && exec "$@"' "$PWD")

on() {
  if [ "$mode" = host ]; then "$@"; else "${enter[@]}" --target "$(first)" -- "${here[@]}" "$@"; fi
}

at() { # n2 COMMAND ...
  namespaces
  local node # the node's first process; the number holds in the cluster's namespaces
  node=$(on pgrep -P "$(cat "$dir/$1/pid")")
  on "${enter[@]}" --target "$node" -- "${here[@]}" "${@:2}"
}

namespaces() {
  [ "$mode" = namespaces ] || fail "this machine allows no namespaces: nodes here are no hosts"
}

end() { # PROCESSES, as words
  for process in $1; do kill -KILL "$process" 2>/dev/null || true; done
}

kill_node() {
  if [ "$mode" = namespaces ]; then
    on kill -KILL "$(cat "$dir/$1/pid")"
  else
    end "$(processes "$1")"
  fi
}

stop() {
  local list=processes
  [ "$mode" = host ] || list=first
  while [ -n "$($list 2>/dev/null)" ]; do end "$($list)"; done
}

verb=${1:-help}
case $verb in
  install) install && exit ;;
  start | stop | on | at | kill-node | cut | fix | revive | set | _login | _node | _revive) ;;
  *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$self" && exit ;;
esac
[ $# -ge 2 ] || fail "usage: cluster.sh $verb DIR ..."
[ "$verb" != start ] || mkdir -p "$2"
dir=$(realpath -- "$2")
shift 2
export SLURM_CONF=$dir/etc/slurm.conf TMPDIR=$dir/tmp
mode=$(cat "$dir/mode" 2>/dev/null || true)
case $verb in
  start) nodes=${1:-4} && start ;;
  _login) nodes=$1 && _login ;;
  revive) if [ "$mode" = host ]; then start_node "$1"; else on bash "$self" _revive "$dir" "$1"; fi ;;
  _revive) start_node "$1" ;;
  cut) namespaces && on ip link set "$1" down ;;
  fix) # Slurm would ask a node that it set down again at some time, which may be minutes later.
    namespaces && on ip link set "$1" up
    on scontrol update nodename="$1" state=resume 2>/dev/null || true ;;
  kill-node) kill_node "$1" ;;
  set) changing_options "$@" >"$dir/etc/changing.conf" && on scontrol reconfigure ;;
  *) "$verb" "$@" ;;
esac
