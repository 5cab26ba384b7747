#!/bin/bash
#SBATCH --job-name=bigft
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
#
#   sbatch [options of sbatch] slurm/finetune.sh config.yaml [section.key=value ...]
#
# One task is one rank. What differs between clusters stands in site.sh beside this file (copy
# site.example.sh), or where BIGFT_SITE says. docs/slurm.md explains every line.

MAX_RESTARTS=100 # requeues of one job

# The last line of the log. $1: exit code, $2: text.
end() {
    printf 'bigft: %s\n' "$2"
    exit "$1"
}

# Ends this start if Slurm has ended it: then nothing is to be requeued. $1: how the run stands.
unless_running() {
    local about started=$'\n +Requeue=[01] Restarts=([0-9]+)' state=$'\n +JobState=([A-Z_]+)'
    about=$(scontrol show job "$job")
    # Preempted; or its node was cut off and is back, and the job runs elsewhere, not to be disturbed.
    [[ $about =~ $started && ${BASH_REMATCH[1]} != "$restarts" ]] && end 75 "$1; Slurm starts the job again"
    [[ $about =~ $state && ${BASH_REMATCH[1]} != RUNNING ]] && end 75 "$1; Slurm has ended the job: submit it again"
}

# Ends this start so that there is another one. $1: saved or stopped, $2: why.
again() {
    unless_running "$1"
    ((restarts < MAX_RESTARTS)) || end 1 "failed because it was restarted $restarts times ($1)"
    trap '' TERM # requeueing ends this script too
    scontrol requeue "$job" || end 1 "failed because Slurm did not requeue it ($1): submit it again"
    end 75 "$1 and requeued ($2, restart $((restarts + 1)))"
}

# Of the shell that submitted, perhaps itself inside a job: none of it is true here.
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT

# sbatch runs a copy of this file: Slurm knows where the original stands.
submitted=$(scontrol show job "$SLURM_JOB_ID" | sed -n '/^ *Command=/{s///p;q}')
[[ $submitted == */finetune.sh* ]] || submitted=$(realpath "$0") # sbatch --wrap
site=${BIGFT_SITE:-${submitted%%/finetune.sh*}/site.sh}
in_container=()
# shellcheck disable=SC1090
if [[ -f $site ]]; then source "$site"; else printf 'bigft: there is no %s\n' "$site"; fi
here=("${in_container[@]}") # on this host; options of srun (a container plug-in's) need an srun here too
[[ ${here[0]-} == -* ]] && here=(srun --nodes=1 --ntasks=1 "${in_container[@]}")

arguments=("${@//%a/${SLURM_ARRAY_TASK_ID-%a}}")
job=${SLURM_ARRAY_TASK_ID+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID-$SLURM_JOB_ID}
restarts=${SLURM_RESTART_COUNT:-0}
nodes=$SLURM_JOB_NUM_NODES
ranks=${SLURM_NTASKS:-$((nodes * ${SLURM_NTASKS_PER_NODE:-1}))}

# Signals: a trap waits for the command in the foreground, so commands run in the background.
child='' stopped='' interrupted='' agents='' code=0
# shellcheck disable=SC2317 # the traps call it
pass_on() {
    stopped=$1 interrupted=yes
    # Of USR1 torchrun dies and leaves its ranks behind; of TERM srun kills all tasks.
    [[ $agents ]] && scancel --signal=TERM "$job" && return
    [[ $child ]] && kill -s USR1 "$child" 2>/dev/null
}
trap 'pass_on USR1' USR1 USR2
trap 'pass_on TERM' TERM

# Runs a command and sets `code`: to 75, without running it, after a signal.
run() {
    code=75
    [[ $stopped ]] && return
    "$@" &
    child=$!
    [[ $stopped ]] && pass_on "$stopped" # it came before there was a child
    interrupted=yes
    while [[ $interrupted ]]; do
        interrupted=''
        wait "$child"
        code=$?
    done
    child=''
}

# What bigft refuses on this host it also writes here: the last line is to say it.
BIGFT_REFUSAL=$(mktemp)
export BIGFT_REFUSAL
trap 'rm -f "$BIGFT_REFUSAL"' EXIT

# Ends the job if the command before failed: Slurm could not fix that by trying again.
must() {
    ((code == 0)) && return
    [[ $stopped ]] && again stopped "SIG$stopped before training began"
    local why="its check ended with exit code $code: see above"
    [[ -s $BIGFT_REFUSAL ]] && why=$(<"$BIGFT_REFUSAL") code=2
    end $((code == 2 ? 2 : 1)) "failed because $why"
}

# How the run stands, and where it is: bigft alone reads configs.
plan=$("${here[@]}" bigft job begin "${arguments[@]}") || code=$?
must
how=${plan%%$'\n'*} output_dir=${plan#*$'\n'}
[[ $output_dir == -* ]] && output_dir=./$output_dir # no option
shown=$(printf %q "$output_dir")
case $how in
finished) end 0 "finished (before this job: $shown)" ;;
named) ;; # the run begins with a checkpoint that the user names
first | again) arguments+=(train.resume_from_checkpoint=true) ;;
*) end 1 "failed because of its arguments: $plan" ;;
esac

BIGFT_HOSTS=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
((nodes > 1)) && export MASTER_ADDR=${MASTER_ADDR:-${BIGFT_HOSTS%%$'\n'*}} # alone: 127.0.0.1
export BIGFT_HOSTS SLURM_EXPORT_ENV=ALL # or tasks miss what site.sh set, after sbatch --export
[[ ${SLURM_CPUS_PER_TASK-} ]] && export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # not inherited
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

printf 'bigft: job %s, restart %s, %s ranks, %s\n' "$job" "$restarts" "$ranks" "$SLURM_JOB_NODELIST"
# A job that has trained before was checked, and training refuses a config edited since.
if [[ $how != again ]]; then
    run "${here[@]}" bigft check "${arguments[@]}" --nproc "$ranks" --nodes "$nodes"
    must
fi
run srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=60 \
    "${in_container[@]}" bigft node "${arguments[@]}"
must

train=(--kill-on-bad-exit=1 --wait=60 "${in_container[@]}")
if [[ ${LAUNCHER-} == torchrun ]]; then
    agents=yes
    ((ranks % nodes)) && end 2 "failed because torchrun cannot start $ranks ranks on $nodes nodes alike"
    train=(--ntasks="$nodes" --ntasks-per-node=1 "${train[@]}" torchrun --nnodes="$nodes"
        --nproc-per-node="$((ranks / nodes))" --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID"
        --rdzv-endpoint="${MASTER_ADDR:-localhost}:${MASTER_PORT:-$((15000 + SLURM_JOB_ID % 15000))}" -m)
fi
run srun "${train[@]}" bigft train "${arguments[@]}"

# Launchers swallow exit codes: bigft knows how the run stands.
verdict=$("${here[@]}" bigft job end "$output_dir" --code "$code" --signal "$stopped")
code=$?
case $code in
0) end 0 "finished ($shown)" ;;
75) again "${verdict%%$'\n'*}" "${verdict#*$'\n'}" ;;
esac
[[ $verdict ]] || unless_running interrupted # srun starts nothing in a job that is over
end $((code == 2 ? 2 : 1)) "failed because ${verdict:-bigft did not say how training ended: see above}"
