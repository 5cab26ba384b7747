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
# One task is one rank: give --nodes, --ntasks-per-node, and on GPUs --gpus-per-node. What differs
# between clusters stands in site.sh beside this file (copy site.example.sh), or where BIGFT_SITE
# says. In a job array, %a in the arguments is the task's number. docs/slurm.md explains every line.

MAX_RESTARTS=100  # requeues of one job
MAX_IDLE_STARTS=3 # a start that saves nothing new is requeued while there were fewer restarts

# The last line of the log. $1: exit code, $2: text.
end() {
    printf 'bigft: %s\n' "$2"
    exit "$1"
}

# Of the shell that submitted, perhaps itself inside a job: none of it is true here.
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT

# sbatch runs a copy of this file: Slurm knows where the original stands.
submitted=$(scontrol show job "$SLURM_JOB_ID" | sed -n '/^ *Command=/{s///p;q}')
site=${BIGFT_SITE:-${submitted%%/finetune.sh*}/site.sh}
in_container=()
# shellcheck disable=SC1090
if [[ -f $site ]]; then source "$site"; else printf 'bigft: there is no %s\n' "$site"; fi
# Commands on this host. Options of srun (a container plug-in's) need an srun here too.
here=("${in_container[@]}")
[[ ${here[0]-} == -* ]] && here=(srun --nodes=1 --ntasks=1 "${in_container[@]}")

arguments=("$@")
[[ ${SLURM_ARRAY_TASK_ID-} ]] && arguments=("${@//%a/$SLURM_ARRAY_TASK_ID}")
job=${SLURM_ARRAY_TASK_ID+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID-$SLURM_JOB_ID}
restarts=${SLURM_RESTART_COUNT:-0}
nodes=$SLURM_JOB_NUM_NODES
ranks=${SLURM_NTASKS:-$((nodes * SLURM_NTASKS_PER_NODE))}

# Signals: a trap waits for the command in the foreground, so commands run in the background.
child='' stopped='' interrupted='' agents=''
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
    interrupted=yes
    while [[ $interrupted ]]; do
        interrupted=''
        wait "$child"
        code=$?
    done
    child=''
}

# Runs a command whose refusal (exit code 2) ends the job: nothing that Slurm could mend by trying.
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
run_check() {
    run "$@" 2>"$errors"
    cat "$errors" >&2
    ((code == 0)) && return
    [[ $stopped ]] || end "$code" "failed because $(grep -v '^srun:' "$errors" | tail -n 1)"
}

# Whether the run goes on, and its directory, from bigft: it alone reads configs.
values=$("${here[@]}" bigft config "${arguments[@]}" \
    --get train.resume_from_checkpoint train.output_dir 2>"$errors") || {
    cat "$errors" >&2
    end 2 "failed because $(tail -n 1 "$errors")"
}
resume=${values%%$'\n'*} output_dir=${values#*$'\n'}
[[ $output_dir == -* ]] && output_dir=./$output_dir # no option
shown=$(printf %q "$output_dir")
# A checkpoint that the user names is where the first start begins; restarts go on by themselves.
if [[ $resume == false ]] || ((restarts > 0)); then
    arguments+=(train.resume_from_checkpoint=true)
    resume=true
fi
status() { "${here[@]}" bigft status "$output_dir" --exit-code 2>/dev/null; }
saved() { printf '%s\n' "$output_dir"/checkpoint-*/COMMIT; }
if [[ $resume == true ]] && status >/dev/null; then
    end 0 "finished (before this job: $shown)"
fi
saved_before=$(saved)

BIGFT_HOSTS=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
((nodes > 1)) && export MASTER_ADDR=${MASTER_ADDR:-${BIGFT_HOSTS%%$'\n'*}} # alone: 127.0.0.1
export BIGFT_HOSTS SLURM_EXPORT_ENV=ALL # or tasks miss what site.sh set, after sbatch --export
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun no longer inherits it
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SRUN_CPUS_PER_TASK}

printf 'bigft: job %s, restart %s, %s ranks, %s\n' "$job" "$restarts" "$ranks" "$SLURM_JOB_NODELIST"
# A restart saves the time: its config was checked, and training refuses one edited since.
((restarts)) || run_check "${here[@]}" bigft check "${arguments[@]}" --nproc "$ranks" --nodes "$nodes"
run_check srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --kill-on-bad-exit=0 \
    "${in_container[@]}" bigft node "${arguments[@]}"

train=(--kill-on-bad-exit=1 --wait=60 "${in_container[@]}")
if [[ ${LAUNCHER-} == torchrun ]]; then
    agents=yes
    train=(--ntasks="$nodes" --ntasks-per-node=1 "${train[@]}" torchrun --nnodes="$nodes"
        --nproc-per-node="$((ranks / nodes))" --rdzv-backend=c10d
        --rdzv-id="$SLURM_JOB_ID"
        --rdzv-endpoint="${MASTER_ADDR:-localhost}:$((15000 + SLURM_JOB_ID % 15000))" -m)
fi
run srun "${train[@]}" bigft train "${arguments[@]}"

# Launchers swallow exit codes: run.json says how the run stands.
trained=$code
text=$(status)
state=$?
why=$(sed -n 's/^  status  *[a-z]* *//p' <<<"$text" | head -n 1)
why=${why#(} why=${why%)} why=${why:-training ended with exit code $trained}
case $state:$trained:$stopped in
0:*) end 0 "finished ($shown)" ;;
*:2:*) end 1 "failed because training was refused: see above" ;;
75:* | 4:* | *:75:* | 2:*:?*) ;; # can go on; 4: died without a word, 2: stopped before it began
*) end 1 "failed because $why" ;;
esac
[[ $stopped == TERM ]] && end 75 "saved; Slurm starts the job again unless it was cancelled"
((restarts >= MAX_RESTARTS)) && end 1 "failed because it was restarted $restarts times; it is saved"
if [[ $(saved) == "$saved_before" ]] && ((restarts >= MAX_IDLE_STARTS)); then
    end 1 "failed because nothing new was saved since restart $restarts ($why)"
fi
# A node that was cut off and is back may find its job started elsewhere: not to be disturbed.
started=$(scontrol show job "$job" | sed -n '/^ *Requeue=/{s/.*Restarts=\([0-9]*\).*/\1/p;q}')
[[ $started == "$restarts" ]] || end 1 "failed because Slurm lost this start; it is saved"
trap '' TERM # requeueing ends this script too
printf 'bigft: saved and requeued (%s, restart %s)\n' "$why" "$((restarts + 1))"
scontrol requeue "$job" && exit 75
end 1 "failed because Slurm did not requeue it; it is saved: submit it again"
