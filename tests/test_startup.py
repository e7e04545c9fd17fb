"""What a command imports: not what it does not use. How long it takes is for benchmarks/startup.py."""

import os
import subprocess
import sys

import pytest

# What such a run has no use for: torch's compiler and exporters, and packages for music, for files and environments of
# others, and for the benchmarks.
HEAVY = {
    "torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "scipy", "sklearn", "pandas", "matplotlib", "gymnasium",
    "stable_baselines3", "torchvision", "transformers", "diffusers", "onnx", "onnxruntime", "tensorflow", "IPython", "pytest",
    "mido", "wandb", "mlflow", "trackio", "sqlalchemy",
}  # fmt: skip
SMALL = "num_envs=8 env.max_steps=4 env.size=8 agent.batch_size=8 agent.learning_starts=8 threads=1 eval_episodes=4"
COMMAND = "from rlgen_cli.cli.main import dispatch; dispatch({words!r})"


def imported(code: str) -> set[str]:
    """The modules that a new interpreter has imported once it has run `code`."""
    say = f"import sys\n{code}\nprint('imported:', *sys.modules)"
    lines = subprocess.run([sys.executable, "-c", say], check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[-1].startswith("imported: ")
    return set(lines[-1].split()[1:])


def run_command(line: str) -> set[str]:
    return imported(COMMAND.format(words=line.split()))


def test_help_imports_neither_torch_nor_hydra():
    assert not run_command("--help") & {"torch", "hydra", "omegaconf", "numpy", "yaml"}


def test_the_trainer_imports_nothing_that_only_some_runs_use():
    found = imported("import rlgen_cli.runs.trainer")
    assert "torch" in found
    assert not found & {
        *HEAVY,
        "tensorboard",
        "mido",
        "rlgen_cli.generators.gan",
        "rlgen_cli.domains.latent.environment",
    }


@pytest.mark.parametrize("reward", ["", " reward=adversarial"])
def test_a_training_and_its_samples_import_nothing_that_they_do_not_use(reward, tmp_path):
    """The training updates its agent, records, evaluates and writes samples."""
    folder = os.path.relpath(tmp_path / "run")
    words = f"train env=pixel agent=dqn{reward} {SMALL} total_steps=128 log_interval=64 hydra.run.dir={folder}"
    found = run_command(words)
    assert "agent/loss" in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "tensorboard" in found
    assert not found & HEAVY
    found = run_command(f"sample run={folder} n=4")
    assert len(list((tmp_path / "run" / "samples").glob("step*/00?.png"))) == 4
    assert not found & {*HEAVY, "tensorboard"}
