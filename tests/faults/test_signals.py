"""Runs that are asked to stop save at the next step and go on as if nothing had been; a second signal ends them at once."""

import random
import signal

import pytest

from rlgen_cli.core import checkpoint
from tests.faults.inject import BACKWARD, FILES, STEP, Fault
from tests.faults.kills import refusal
from tests.faults.record import WHERE
from tests.faults.runs import RUN, differences, named, next_line, outcome, status_of

pytestmark = pytest.mark.faults
# The exit code of a run that a signal has stopped, after it saved; and of one that a second signal has ended.
PREEMPTED = {"SIGINT": 75, "SIGTERM": 75, "SIGUSR1": 75, "SIGHUP": 75}
TWICE = {"SIGINT": 130, "SIGTERM": 130, "SIGUSR1": 130, "SIGHUP": 130}
# Where nothing asks a run to save, as while it starts, a signal does what it does by default.
ANYWHERE = {name: {0, 75, 130, -getattr(signal, name)} for name in PREEMPTED}
STOPPED = ("tiny_dqn", "pixel_ppo_adversarial_and_classifier", "music_reinforce_lstm", "latent_gan_dqn_joint")
FITTED = ("music_pretrain_maximum_likelihood", "latent_gan_pretrain_GAN", "pixel_reinforce_classifier")
NUM_ENVS = 4


@pytest.fixture(scope="module")
def expected(forks, tmp_path_factory):
    """What each trial comes to by itself, and the counts of its calls."""
    place, found = tmp_path_factory.mktemp("expected"), {}
    for name in {*STOPPED, *FITTED}:
        child = forks.run(named(name).line, place / name)
        assert child.code == 0, child.said
        found[name] = outcome(place / name / RUN), child.reported["counts"]
    return found


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.parametrize("number", PREEMPTED)
def test_a_signal_stops_a_training_at_the_next_step(number, name, forks, record, expected, tmp_path):
    trial, step = named(name), random.Random(f"{number} {name}").randint(1, 11)
    child = forks.run(trial.line, tmp_path / "place", [Fault(STEP, step, number)])
    run, failures = tmp_path / "place" / RUN, []
    if child.code != PREEMPTED[number]:
        failures.append(f"{number} ended a run with {child.code}, not {PREEMPTED[number]}")
    status = status_of(run)
    if (status.get("status"), status.get("step")) != ("preempted", step * NUM_ENVS):
        failures.append(f"{number} left the status {status.get('status')}, not preempted{WHERE}step {step * NUM_ENVS}")
    if f"resume={RUN}" not in child.said:
        failures.append(f"{number}: the run does not say how to go on")
    if [path.name for path in checkpoint.steps(run)][-1:] != [f"step_{step * NUM_ENVS:09d}"]:
        failures.append(f"{number}: no checkpoint of the step{WHERE}step {step * NUM_ENVS}")
    again = forks.run(next_line(trial, tmp_path / "place"), tmp_path / "place")
    failures += [refusal(again, run)] if again.code else differences(expected[name][0], run)
    record.add(f"{number} in a training", trial.title, 1, min(1, len(failures)), failures)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("number", PREEMPTED)
def test_a_signal_stops_a_stage_at_the_next_update(number, name, forks, record, expected, tmp_path):
    trial, run, failures = named(name), tmp_path / "place" / RUN, []
    child = forks.run(trial.line, tmp_path / "place", [Fault(BACKWARD, 3, number)])
    if child.code != PREEMPTED[number]:
        failures.append(f"{number} ended a run in a stage with {child.code}, not {PREEMPTED[number]}")
    if status_of(run).get("status") != "preempted":
        failures.append(f"{number} in a stage left the status {status_of(run).get('status')}, not preempted")
    if not list(run.glob("stages/*/progress/manifest.json")):
        failures.append(f"{number}: the stage was not saved")
    again = forks.run(next_line(trial, tmp_path / "place"), tmp_path / "place")
    failures += [refusal(again, run)] if again.code else differences(expected[name][0], run)
    record.add(f"{number} in a stage", trial.title, 1, min(1, len(failures)), failures)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("number", PREEMPTED)
def test_a_second_signal_ends_at_once(number, forks, record, expected, tmp_path):
    trial, run, failures = named("tiny_dqn"), tmp_path / "place" / RUN, []
    child = forks.run(trial.line, tmp_path / "place", [Fault(STEP, 9, number), Fault(STEP, 9, number)])
    if child.code != TWICE[number]:
        failures.append(f"a second {number} ended a run with {child.code}, not {TWICE[number]}")
    if status_of(run).get("status") not in ("failed", "preempted"):
        failures.append(f"a second {number} left the status {status_of(run).get('status')}")
    if [path.name for path in checkpoint.steps(run)] != ["step_000000016", "step_000000032"]:
        failures.append(f"a second {number}: the run did not end at once")
    again = forks.run(next_line(trial, tmp_path / "place"), tmp_path / "place")
    failures += [refusal(again, run)] if again.code else differences(expected[trial.name][0], run)
    record.add(f"{number} twice", trial.title, 1, min(1, len(failures)), failures)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("number", PREEMPTED)
def test_a_signal_at_any_operation_on_files(number, forks, record, expected, tmp_path):
    """While it starts, saves, or makes the last samples."""
    trial, rng, lost = named("pixel_reinforce_classifier"), random.Random(number), 0
    failures: list[str] = []
    ends, counts = expected[trial.name]
    for i in range(8):
        place, fault = tmp_path / str(i), Fault(FILES, rng.randint(1, counts[FILES]), number)
        child = forks.run(trial.line, place, [fault])
        found = [] if child.code in ANYWHERE[number] else [f"{number} ended a run with {child.code}{WHERE}{fault}"]
        again = forks.run(next_line(trial, place), place)
        found += [refusal(again, place / RUN)] if again.code else differences(ends, place / RUN)
        failures, lost = failures + found, lost + bool(found)
    record.add(f"{number} at any operation on files", trial.title, 8, lost, failures)
    assert not failures, "\n".join(failures)
