"""slurm/finetune.sh: what it starts, with which words, and the last line of every job's log."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from slurm_script.stage import REPOSITORY, SECONDS, Stage

RESUMABLE = 'echo "  status  resumable (a signal asked for a stop)"; exit 75'
FAILED = 'echo "  status  failed (RuntimeError: no luck)"; exit 1'
RUNNING = 'echo "  status  running"; exit 4'
NO_RUN = "exit 2"
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


def test_a_restart_examines_nodes_and_leaves_out_what_was_checked(stage: Stage) -> None:
    stage.environ["SLURM_RESTART_COUNT"] = "1"
    assert stage.run("config.yaml") == (0, "bigft: finished (out)")
    assert stage.named("bigft", "check") == []
    assert len(stage.named("bigft", "node")) == len(stage.named("bigft", "train")) == 1


def test_what_is_refused_on_the_batch_host_starts_no_srun(stage: Stage) -> None:
    check = "echo 'config.yaml:3: optim.lr: unknown key' >&2; exit 2"
    told = "bigft: failed because config.yaml:3: optim.lr: unknown key"
    assert stage.run("config.yaml", check=check) == (2, told)
    assert stage.named("srun") == stage.named("scontrol", "requeue") == []


def test_a_config_that_does_not_load_is_told_in_the_last_line(stage: Stage) -> None:
    config = "echo 'no.yaml: No such file' >&2; exit 2"
    told = "bigft: failed because no.yaml: No such file"
    assert stage.run("no.yaml", config=config) == (2, told)
    assert stage.named("srun") == []


def test_a_failing_node_is_named_in_the_last_line(stage: Stage) -> None:
    node = "echo 'n2: cannot reach n1:15007' >&2; echo 'srun: error: n2: exit code 2' >&2; exit 2"
    told = "bigft: failed because n2: cannot reach n1:15007"
    assert stage.run("config.yaml", node=node) == (2, told)
    assert stage.named("bigft", "train") == []


@pytest.mark.parametrize(
    ("restarts", "progress", "train", "status", "code", "told"),
    [
        (0, True, "exit 75", RESUMABLE, 75,
         "saved and requeued (a signal asked for a stop, restart 1)"),
        (5, True, "exit 75", RESUMABLE, 75,
         "saved and requeued (a signal asked for a stop, restart 6)"),
        (2, False, "exit 137", RESUMABLE, 75,
         "saved and requeued (a signal asked for a stop, restart 3)"),
        (3, False, "exit 75", RESUMABLE, 1,
         "failed because nothing new was saved since restart 3 (a signal asked for a stop)"),
        (100, True, "exit 75", RESUMABLE, 1,
         "failed because it was restarted 100 times; it is saved"),
        (0, True, "exit 1", FAILED, 1, "failed because RuntimeError: no luck"),
        (0, False, "exit 2", RESUMABLE, 1, "failed because training was refused: see above"),
        (0, False, "exit 1", NO_RUN, 1,
         "failed because training ended with exit code 1"),
        (0, True, "exit 137", RUNNING, 75,
         "saved and requeued (training ended with exit code 137, restart 1)"),
        (0, False, "exit 75", NO_RUN, 75,
         "saved and requeued (training ended with exit code 75, restart 1)"),
    ],
)  # fmt: skip
def test_the_last_line_says_how_the_job_ended(
    stage: Stage, restarts: int, progress: bool, train: str, status: str, code: int, told: str
) -> None:
    stage.environ["SLURM_RESTART_COUNT"] = str(restarts)
    train = f"{stage.save(10)}; {train}" if progress else train
    assert stage.run("config.yaml", train=train, status=status) == (code, f"bigft: {told}")
    requeued = [["7"]] if told.startswith("saved and requeued") else []
    assert stage.named("scontrol", "requeue") == requeued


def test_a_refused_requeue_is_told(stage: Stage) -> None:
    code, told = stage.run(
        "config.yaml", train="exit 75", status=RESUMABLE, requeue="echo disabled >&2; exit 1"
    )
    assert code == 1
    assert told == "bigft: failed because Slurm did not requeue it; it is saved: submit it again"


def test_a_start_that_slurm_has_replaced_leaves_the_job_alone(stage: Stage) -> None:
    """Its node was cut off and is back, while the job runs on others."""
    stage.environ["STAGE_RESTARTS"] = "1"
    told = "bigft: failed because Slurm lost this start; it is saved"
    assert stage.run("config.yaml", train="exit 75", status=RESUMABLE) == (1, told)
    assert stage.named("scontrol", "requeue") == []


def test_a_member_of_a_chain_whose_run_has_finished_does_nothing(stage: Stage) -> None:
    assert stage.run("config.yaml", status="exit 0") == (
        0,
        "bigft: finished (before this job: out)",
    )
    assert stage.named("srun") == stage.named("bigft", "check") == []


@pytest.mark.parametrize("signal_name", ["SIGUSR1", "SIGUSR2"])
def test_a_signal_to_the_script_reaches_training_and_the_job_is_requeued(
    stage: Stage, signal_name: str
) -> None:
    saved = "[[ $(cat $STAGE/got) == USR1 ]]"
    job = stage.start("config.yaml", train=WAITS, status=RESUMABLE, requeue=saved)
    assert signalled(stage, job, signal_name)[0] == 75
    assert stage.named("scontrol", "requeue") == [["7"]]


def test_srun_gets_no_sigterm_of_which_it_kills_the_tasks(stage: Stage) -> None:
    job = stage.start("config.yaml", train=WAITS, status=RESUMABLE)
    signalled(stage, job, "SIGTERM")
    assert (stage.place / "got").read_text() == "USR1\n"


def test_after_sigterm_it_is_slurm_that_starts_the_job_again_or_not(stage: Stage) -> None:
    job = stage.start("config.yaml", train=WAITS, status=RESUMABLE)
    told = "bigft: saved; Slurm starts the job again unless it was cancelled"
    assert signalled(stage, job, "SIGTERM") == (75, told)
    assert stage.named("scontrol", "requeue") == []


def test_a_signal_during_the_check_starts_nothing_more(stage: Stage) -> None:
    job = stage.start("config.yaml", check=WAITS, status=NO_RUN)
    code, told = signalled(stage, job, "SIGUSR1")
    assert code == 75
    assert told.startswith("bigft: saved and requeued (")
    assert stage.named("srun") == []


def test_under_torchrun_a_stop_is_a_sigterm_to_its_agents(stage: Stage) -> None:
    stage.environ["LAUNCHER"] = "torchrun"
    job = stage.start("config.yaml", train=WAITS, status=RESUMABLE)
    signalled(stage, job, "SIGUSR1")
    assert (stage.place / "got").read_text() == "TERM\n"
    assert stage.named("scancel") == [["--signal=TERM", "7"]]
    (words,) = stage.named("torchrun")
    assert words == [
        "--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-id=7",
        "--rdzv-endpoint=n1:15007", "-m", "bigft", "train", "config.yaml",
        "train.resume_from_checkpoint=true",
    ]  # fmt: skip


def signalled(stage: Stage, job: subprocess.Popen[str], name: str) -> tuple[int, str]:
    """Sends the signal when the command on the stage waits for it; how the job ends."""
    deadline = time.monotonic() + SECONDS
    while not (stage.place / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
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
    code, told = stage.run("config.yaml", config="echo false; cat $STAGE/name")
    assert (code, told.startswith("bigft: finished (")) == (0, True)
    assert stage.named("bigft", "status") == [[f"./{name}", "--exit-code"]] * 2
    assert not list(stage.place.rglob("canary"))


def test_each_task_of_an_array_has_its_number_in_its_arguments(stage: Stage) -> None:
    stage.environ |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "5"}
    words = ["sweep/%a.yaml", "train.seed=%a"]
    stage.run(*words, train=f"{stage.save(1)}; exit 75", status=RESUMABLE)
    expected = ["sweep/3.yaml", "train.seed=3", "train.resume_from_checkpoint=true"]
    assert stage.named("bigft", "train") == [expected]
    # By the plain id, Slurm would requeue the whole array.
    assert stage.named("scontrol", "requeue") == [["5_3"]]


def test_a_checkpoint_of_the_users_counts_on_the_first_start_only(stage: Stage) -> None:
    config = "echo other/checkpoint-5; echo out"
    words = ["config.yaml", "train.resume_from_checkpoint=other/checkpoint-5"]
    stage.run(*words, config=config)
    stage.environ["SLURM_RESTART_COUNT"] = "1"
    (stage.place / "trained").unlink()
    stage.run(*words, config=config)
    assert stage.named("bigft", "train") == [words, [*words, "train.resume_from_checkpoint=true"]]


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
    for verb in ("check", "node", "train", "status"):
        assert stage.environment_of(verb)["IN"] == "a container"
    for words in stage.named("srun"):
        assert words[words.index("bigft") - 2 : words.index("bigft")] == ["env", "IN=a container"]


def test_a_container_of_an_srun_plug_in_holds_the_batch_hosts_commands_too(stage: Stage) -> None:
    (stage.place / "checkout" / "site.sh").write_text("in_container=(--container-image=a.sqsh)")
    assert stage.run("config.yaml")[0] == 0
    for verb in ("config", "check", "node", "train", "status"):
        words = next(call for call in stage.named("srun") if verb in call)
        assert words[words.index("bigft") - 1] == "--container-image=a.sqsh"


def test_site_example_changes_nothing_as_it_is(stage: Stage) -> None:
    example = REPOSITORY / "slurm" / "site.example.sh"
    (stage.place / "checkout" / "site.sh").write_text(example.read_text())
    assert stage.run("config.yaml") == (0, "bigft: finished (out)")
