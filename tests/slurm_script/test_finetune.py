"""slurm/finetune.sh: what it starts, with which words, and the last line of every job's log."""

from __future__ import annotations

import signal
import subprocess

import pytest
from slurm_script.stage import REPOSITORY, SCENES, Stage
from waiting import wait_until

SAVED = "echo saved; echo a signal asked for a stop; exit 75"
FAILED = "echo RuntimeError: no luck; exit 1"
# A command that waits for a signal, takes a while to save and ends with 75, as training does.
WAITS = """
for name in USR1 USR2 TERM; do trap "sleep 0.2; echo $name >>$STAGE/got; exit 75" $name; done
echo $$ >$STAGE/pid; mv $STAGE/pid $STAGE/ready
while :; do sleep 0.02; done
"""


def test_a_run_goes_through_check_nodes_and_training(stage: Stage) -> None:
    assert stage.run("config.yaml", "a.b=c") == (0, "bigft: finished (out)")
    words = ["config.yaml", "a.b=c", "train.resume_from_checkpoint=true"]
    assert stage.named("bigft", "check") == [[*words, "--nproc", "4", "--nodes", "2"]]
    assert stage.named("bigft", "node") == [words]
    assert stage.named("bigft", "train") == [words]
    of_nodes, of_training = stage.named("srun")
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1"} <= {*of_nodes}
    assert of_training[:4] == ["--kill-on-bad-exit=1", "--wait=60", "bigft", "train"]
    assert stage.named("scontrol", "requeue") == []


def test_a_job_that_has_trained_examines_nodes_and_leaves_out_what_was_checked(
    stage: Stage,
) -> None:
    stage.environ["SLURM_RESTART_COUNT"] = "1"
    again = "echo again; echo out"
    assert stage.run("config.yaml", begin=again) == (0, "bigft: finished (out)")
    assert stage.named("bigft", "check") == []
    assert len(stage.named("bigft", "node")) == len(stage.named("bigft", "train")) == 1


REFUSED = (
    'printf "%s (and 1 more: see above)" "config.yaml:3: optim.lr: unknown key" >$BIGFT_REFUSAL'
)


@pytest.mark.parametrize("verb", ["begin", "check", "node"])
@pytest.mark.parametrize(
    ("scene", "code", "why"),
    [
        (f"{REFUSED}; exit 2", 2, "config.yaml:3: optim.lr: unknown key (and 1 more: see above)"),
        # srun killed another node, which waited for the one that refused.
        (f"{REFUSED}; exit 137", 2, "config.yaml:3: optim.lr: unknown key (and 1 more: see above)"),
        ("exit 2", 2, "its check ended with exit code 2: see above"),
        ("exit 1", 1, "its check ended with exit code 1: see above"),
        ("kill -9 $$", 1, "its check ended with exit code 137: see above"),
    ],
)
def test_what_is_refused_before_training_ends_the_job(
    stage: Stage, verb: str, scene: str, code: int, why: str
) -> None:
    assert stage.run("config.yaml", **{verb: scene}) == (code, f"bigft: failed because {why}")
    assert stage.named("bigft", "train") == stage.named("scontrol", "requeue") == []
    assert not [*stage.place.glob("tmp.*")], "a file is left in TMPDIR"


def test_what_a_node_says_is_read_at_once(stage: Stage) -> None:
    job = stage.start("config.yaml", node=f"echo n2: no python here >&2; {WAITS}")
    assert job.stdout is not None
    while "n2: no python here" not in job.stdout.readline():
        assert job.poll() is None
    signalled(stage, job, "SIGUSR1")


def test_without_a_place_for_temporary_files_a_job_runs(stage: Stage) -> None:
    stage.environ["TMPDIR"] = "/nowhere"
    assert stage.run("config.yaml") == (0, "bigft: finished (out)")
    told = "bigft: failed because its check ended with exit code 2: see above"
    assert stage.run("config.yaml", check="exit 2") == (2, told)


@pytest.mark.parametrize(
    ("restarts", "end", "code", "told"),
    [
        (0, SAVED, 75, "saved and requeued (a signal asked for a stop, restart 1)"),
        (5, SAVED, 75, "saved and requeued (a signal asked for a stop, restart 6)"),
        (0, "echo stopped; echo SIGUSR1 before training began; exit 75", 75,
         "stopped and requeued (SIGUSR1 before training began, restart 1)"),
        (100, SAVED, 1, "failed because it was restarted 100 times (saved)"),
        (0, FAILED, 1, "failed because RuntimeError: no luck"),
        (0, "echo n1: port taken; exit 2", 2, "failed because n1: port taken"),
        (0, "exit 1", 1, "failed because bigft did not say how training ended: see above"),
        (0, "kill -9 $$", 1, "failed because bigft did not say how training ended: see above"),
    ],
)  # fmt: skip
def test_the_last_line_says_how_the_job_ended(
    stage: Stage, restarts: int, end: str, code: int, told: str
) -> None:
    stage.environ["SLURM_RESTART_COUNT"] = str(restarts)
    assert stage.run("config.yaml", train="exit 137", end=end) == (code, f"bigft: {told}")
    assert stage.named("bigft", "job", "end") == [["out", "--code", "137", "--signal", ""]]
    requeued = [["7"]] if "and requeued" in told else []
    assert stage.named("scontrol", "requeue") == requeued


def test_a_refused_requeue_is_told(stage: Stage) -> None:
    told = "bigft: failed because Slurm did not requeue it (saved): submit it again"
    assert stage.run("config.yaml", end=SAVED, requeue="echo no >&2; exit 1") == (1, told)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        # Its node was cut off and is back, while the job runs on others.
        ("STAGE_RESTARTS", "1", "saved; Slurm starts the job again"),
        ("STAGE_STATE", "COMPLETING", "saved; Slurm has ended the job: submit it again"),
    ],
)
def test_a_job_that_slurm_ends_or_has_started_elsewhere_is_left_alone(
    stage: Stage, variable: str, value: str, told: str
) -> None:
    stage.environ[variable] = value
    assert stage.run("config.yaml", train="exit 75", end=SAVED) == (75, f"bigft: {told}")
    assert stage.named("scontrol", "requeue") == []


@pytest.mark.parametrize(
    ("state", "code", "told"),
    [
        ("COMPLETING", 75, "interrupted; Slurm has ended the job: submit it again"),
        ("RUNNING", 1, "failed because bigft did not say how training ended: see above"),
    ],
)
def test_where_srun_starts_nothing_in_a_job_that_is_over_slurm_is_asked(
    stage: Stage, state: str, code: int, told: str
) -> None:
    """In a container plug-in's image bigft can only be asked through srun."""
    stage.environ["STAGE_STATE"] = state
    refused = "echo srun: Job has expired >&2; exit 1"
    assert stage.run("config.yaml", train="exit 75", end=refused) == (code, f"bigft: {told}")
    assert stage.named("scontrol", "requeue") == []


def test_without_an_answer_of_slurms_it_is_asked_to_requeue(stage: Stage) -> None:
    stage.environ["STAGE_STATE"] = ""
    told = "bigft: saved and requeued (a signal asked for a stop, restart 1)"
    assert stage.run("config.yaml", end=SAVED) == (75, told)


def test_a_job_whose_run_has_finished_does_nothing(stage: Stage) -> None:
    told = "bigft: finished (before this job: out)"
    assert stage.run("config.yaml", begin="echo finished; echo out") == (0, told)
    assert stage.named("srun") == stage.named("bigft", "check") == []


def test_words_that_are_no_config_are_told(stage: Stage) -> None:
    code, told = stage.run("--help", begin="echo usage: bigft job begin")
    assert (code, told) == (1, "bigft: failed because of its arguments: usage: bigft job begin")


@pytest.mark.parametrize("signal_name", ["SIGUSR1", "SIGUSR2"])
def test_a_signal_to_the_script_reaches_training_and_the_job_is_requeued(
    stage: Stage, signal_name: str
) -> None:
    saved = "[[ $(cat $STAGE/got) == USR1 ]]"
    job = stage.start("config.yaml", train=WAITS, end=SAVED, requeue=saved)
    assert signalled(stage, job, signal_name)[0] == 75
    assert stage.named("scontrol", "requeue") == [["7"]]
    assert stage.named("bigft", "job", "end") == [["out", "--code", "75", "--signal", "USR1"]]


def test_srun_gets_no_sigterm_of_which_it_kills_the_tasks(stage: Stage) -> None:
    job = stage.start("config.yaml", train=WAITS, end=SAVED)
    signalled(stage, job, "SIGTERM")
    assert (stage.place / "got").read_text() == "USR1\n"


def test_a_sigterm_that_nobody_follows_up_is_a_stop_like_others(stage: Stage) -> None:
    """`sbatch --signal=B:TERM@180`."""
    job = stage.start("config.yaml", train=WAITS, end=SAVED)
    told = "bigft: saved and requeued (a signal asked for a stop, restart 1)"
    assert signalled(stage, job, "SIGTERM") == (75, told)


@pytest.mark.parametrize("verb", ["begin", "check", "node"])
def test_a_signal_before_training_starts_nothing_more(stage: Stage, verb: str) -> None:
    is_begin = verb == "begin"  # which is waited for in the foreground
    scenes = {verb: f"touch $STAGE/ready; sleep 0.3; {SCENES[verb]}" if is_begin else WAITS}
    job = stage.start("config.yaml", **scenes)
    told = "bigft: stopped and requeued (SIGUSR1 before training began, restart 1)"
    assert signalled(stage, job, "SIGUSR1") == (75, told)
    assert stage.named("bigft", "train") == []


def test_under_torchrun_a_stop_is_a_sigterm_to_its_agents(stage: Stage) -> None:
    stage.environ["LAUNCHER"] = "torchrun"
    job = stage.start("config.yaml", train=WAITS, end=SAVED)
    signalled(stage, job, "SIGUSR1")
    assert (stage.place / "got").read_text() == "TERM\n"
    assert stage.named("scancel") == [["--signal=TERM", "7"]]
    (words,) = stage.named("torchrun")
    assert words == [
        "--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-id=7",
        "--rdzv-endpoint=n1:15007", "-m", "bigft", "train", "config.yaml",
        "train.resume_from_checkpoint=true",
    ]  # fmt: skip


def test_torchrun_meets_at_the_port_of_site_sh(stage: Stage) -> None:
    stage.environ |= {"LAUNCHER": "torchrun", "BIGFT_SITE": "site.sh"}
    (stage.place / "submitted" / "site.sh").write_text("export MASTER_PORT=25555\n")
    stage.run("config.yaml")
    assert "--rdzv-endpoint=n1:25555" in stage.named("torchrun")[0]


def test_torchrun_is_not_started_on_nodes_of_different_numbers_of_ranks(stage: Stage) -> None:
    stage.environ |= {"LAUNCHER": "torchrun", "SLURM_NTASKS": "3"}
    told = "bigft: failed because torchrun cannot start 3 ranks on 2 nodes alike"
    assert stage.run("config.yaml") == (2, told)
    assert stage.named("torchrun") == []


def signalled(stage: Stage, job: subprocess.Popen[str], name: str) -> tuple[int, str]:
    """Sends the signal when the command on the stage waits for it; how the job ends."""
    wait_until((stage.place / "ready").exists)
    job.send_signal(signal.Signals[name])
    return stage.end(job)


def test_hostile_names_are_arguments_and_nothing_else(stage: Stage) -> None:
    words = [
        'con fig\'s "best".yaml',
        "train.output_dir=out $(touch canary)",
        "train.run_name=`touch canary`; touch canary",
        "train.run_name=two\nlines\n",
        "train.run_name=* ? [a-z] $HOME \\ %a",
        "train.run_name=",
    ]
    assert stage.run(*words)[0] == 0
    expected = [*words, "train.resume_from_checkpoint=true"]
    assert stage.named("bigft", "node") == stage.named("bigft", "train") == [expected]
    assert stage.named("bigft", "check") == [[*expected, "--nproc", "4", "--nodes", "2"]]
    assert not list(stage.place.rglob("canary"))


def test_a_hostile_run_directory_is_asked_about_as_it_is(stage: Stage) -> None:
    name = "-o *\n'$(touch canary)' \"x\""
    (stage.place / "name").write_text(f"{name}\n")
    code, told = stage.run("config.yaml", begin="echo first; cat $STAGE/name")
    assert (code, told.startswith("bigft: finished (")) == (0, True)
    (asked,) = stage.named("bigft", "job", "end")
    assert asked[0] == f"./{name}"
    assert not list(stage.place.rglob("canary"))


def test_each_task_of_an_array_has_its_number_in_its_arguments(stage: Stage) -> None:
    stage.environ |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "5"}
    words = ["sweep/%a.yaml", "train.seed=%a"]
    stage.run(*words, train="exit 75", end=SAVED)
    expected = ["sweep/3.yaml", "train.seed=3", "train.resume_from_checkpoint=true"]
    assert stage.named("bigft", "train") == [expected]
    # By the plain id, Slurm would requeue the whole array.
    assert stage.named("scontrol", "requeue") == [["5_3"]]


def test_a_run_begins_with_the_checkpoint_that_the_user_names(stage: Stage) -> None:
    words = ["config.yaml", "train.resume_from_checkpoint=other/checkpoint-5"]
    stage.run(*words, begin="echo named; echo out")
    assert stage.named("bigft", "train") == [words]


def test_without_any_word_on_tasks_there_is_one_on_each_node(stage: Stage) -> None:
    """As in `sbatch --wrap`, which also has no script whose place Slurm would know."""
    del stage.environ["SLURM_NTASKS"], stage.environ["SLURM_CPUS_PER_TASK"]
    assert stage.run("config.yaml") == (0, "bigft: finished (out)")
    assert stage.named("bigft", "check")[0][-4:] == ["--nproc", "2", "--nodes", "2"]
    environ = stage.environment_of("train")
    assert environ["OMP_NUM_THREADS"] == "1"
    assert "SRUN_CPUS_PER_TASK" not in environ


def test_ranks_get_an_environment_of_this_job_alone(stage: Stage) -> None:
    stage.environ |= {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "login"}
    stage.run("config.yaml")
    environ = stage.environment_of("train")
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & environ.keys()
    assert environ["MASTER_ADDR"] == "n1"
    assert environ["BIGFT_HOSTS"].split() == ["n1", "n2"]
    assert environ["SRUN_CPUS_PER_TASK"] == environ["OMP_NUM_THREADS"] == "3"
    assert environ["SLURM_EXPORT_ENV"] == "ALL"


def test_with_one_node_ranks_meet_on_this_machine(stage: Stage) -> None:
    stage.environ["SLURM_JOB_NUM_NODES"] = "1"
    stage.run("config.yaml")
    assert "MASTER_ADDR" not in stage.environment_of("train")


def test_site_sh_is_found_beside_the_script_that_was_submitted(stage: Stage) -> None:
    (stage.place / "checkout" / "site.sh").write_text("export NCCL_SOCKET_IFNAME=ib0")
    stage.run("config.yaml")
    assert stage.environment_of("train")["NCCL_SOCKET_IFNAME"] == "ib0"


def test_another_site_sh_is_named_by_the_environment(stage: Stage) -> None:
    (stage.place / "checkout" / "site.sh").write_text("export FROM=checkout")
    (stage.place / "my site.sh").write_text("export FROM=mine")
    stage.environ["BIGFT_SITE"] = str(stage.place / "my site.sh")
    stage.run("config.yaml")
    assert stage.environment_of("train")["FROM"] == "mine"


def test_a_container_stands_before_every_bigft(stage: Stage) -> None:
    (stage.place / "checkout" / "site.sh").write_text("in_container=(env 'IN=a container')")
    assert stage.run("config.yaml")[0] == 0
    for verb in ("begin", "check", "node", "train", "end"):
        assert stage.environment_of(verb)["IN"] == "a container"
    for words in stage.named("srun"):
        assert words[words.index("bigft") - 2 : words.index("bigft")] == ["env", "IN=a container"]


def test_a_container_of_an_srun_plug_in_holds_the_batch_hosts_commands_too(stage: Stage) -> None:
    (stage.place / "checkout" / "site.sh").write_text("in_container=(--container-image=a.sqsh)")
    assert stage.run("config.yaml")[0] == 0
    for verb in ("begin", "check", "node", "train", "end"):
        words = next(call for call in stage.named("srun") if verb in call)
        assert words[words.index("bigft") - 1] == "--container-image=a.sqsh"


def test_site_example_changes_nothing_as_it_is(stage: Stage) -> None:
    example = REPOSITORY / "slurm" / "site.example.sh"
    (stage.place / "checkout" / "site.sh").write_text(example.read_text())
    assert stage.run("config.yaml") == (0, "bigft: finished (out)")
