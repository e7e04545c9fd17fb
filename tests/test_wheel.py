"""The wheel, in a clean environment: the console script trains, samples and pretrains, and all configs are there."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import small

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what a checkout holds, without a download: hatchling must be installed (the extra `dev`)."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("rlgen_cli", "configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel alone; what it depends on is found in this one's packages."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    pip("--python", str(home / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    packages = next((home / "lib").glob("python*/site-packages"))
    # Of a folder that a .pth names, no .pth is read: this checkout, which is installed there, is not importable.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home


@pytest.fixture
def call(environment: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a program of the environment in an empty folder; what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean |= {"RLGEN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def run(program: str, *words: str) -> str:
        command = [str(environment / "bin" / program), *words]
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_wheel_has_every_config(wheel):
    inside = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".yaml")]
    there = [f"rlgen_cli/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")]
    there += [path.relative_to(ROOT).as_posix() for path in (ROOT / "rlgen_cli").rglob("*.yaml")]
    assert sorted(inside) == sorted(there)


def test_own_components_run_where_it_is_installed(call):
    for words in (["env", "bars"], ["term", "smooth"]):
        call("rlgen", "new", *words)
    words = ["--config-dir", "mine", "env=bars", "agent=random", "+reward/term=smooth", "total_steps=64", "num_envs=4"]
    assert "smooth" in call("rlgen", "train", *words, "device=cpu", "threads=1", "eval_episodes=4")


def test_the_installed_package_is_what_runs(call, environment):
    where = call("python", "-c", "import rlgen_cli; print(rlgen_cli.__file__)")
    assert Path(where.strip()).is_relative_to(environment)


def test_the_console_script_trains_samples_and_pretrains(call, tmp_path):
    assert call("rlgen", "--version").startswith("rlgen ")
    assert "latent_gan" in call("rlgen", "list", "env")
    call("rlgen", "train", *small("env=pixel", "agent=dqn"), "hydra.run.dir=drawn")
    call("rlgen", "sample", "run=drawn", "n=2", "format=png", "out=samples")
    assert (tmp_path / "samples" / "grid.png").is_file()
    words = [word for word in small("env=music", "agent=maximum_likelihood") if not word.startswith("agent=")]
    call("rlgen", "pretrain", *words, "epochs=1", "hydra.run.dir=prior")
    assert (tmp_path / "prior" / "checkpoints").is_dir()
