"""Runs on a hub of models, by huggingface_hub: `rlgen push`, and `run=hf://USER/NAME` (or `…@REVISION`)."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import DictConfig

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.extras import imported
from rlgen_cli.core.files import MIB

SCHEME = "hf://"
NAME = re.compile(SCHEME + r"(WORD)/(WORD)(?:@(WORD))?".replace("WORD", r"[A-Za-z0-9][A-Za-z0-9_.-]*"))
HERE = Path("outputs") / "hub"  # where runs of the hub are kept
# All that opening and reporting a run reads; what else a stranger put there stays there.
WANTED = ["*.yaml", "*.json", "*.jsonl", "README.md", "policy.onnx", "checkpoints/*", "stages/*", "samples/*"]
LARGEST = 4096 * MIB


def push(config: DictConfig) -> str:
    """Export `config.run`, and put that on the hub as `config.repo`; returns its address.

    Raises:
        UserError: where the hub refuses, or huggingface_hub is not installed.
    """
    api = client().HfApi()
    with tempfile.TemporaryDirectory() as place:
        from rlgen_cli.runs.export import export_to  # here, since opening a run from the hub needs none of it

        folder = export_to(Path(place) / "run", config)
        with refusals("repo", config.repo):
            made = api.create_repo(config.repo, private=config.private, exist_ok=True)
            api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=config.message)
    return f"{SCHEME}{made.repo_id}"


def fetched(name: str) -> Path:
    """The run at `hf://USER/NAME` or `hf://USER/NAME@REVISION`, as a folder below outputs/hub. It is a stranger's: its
    files are read as data, as those of any run.

    Raises:
        UserError: where there is none, or it cannot be had.
    """
    named = NAME.fullmatch(name)
    if named is None:
        raise UserError(f"run: must be {SCHEME}USER/NAME or {SCHEME}USER/NAME@REVISION, got {name}.")
    user, own, revision = named.groups()
    repo, hub = f"{user}/{own}", client()
    asked: dict[str, Any] = {"revision": revision, "allow_patterns": WANTED}
    asked["local_dir"] = HERE / user / own / (revision or "main")
    with refusals("run", name):
        files = hub.snapshot_download(repo, dry_run=True, **asked)
        check(files, name)
        return Path(hub.snapshot_download(repo, **asked))


def check(files: list[Any], name: str) -> None:
    """What is to be fetched lies where it is put, and has room.

    Raises:
        UserError: naming what is wrong.
    """
    for file in files:
        path = PurePosixPath(file.filename)
        inside = not path.is_absolute() and ".." not in path.parts and "\\" not in file.filename
        require(inside, f"run: {name} holds a file {file.filename!r}, which would lie elsewhere.")
    size = sum(file.file_size for file in files)
    most = f"more than {LARGEST / MIB:,.0f}"
    require(size <= LARGEST, f"run: {name} has {size / MIB:,.0f} MiB, {most}; fetch it by hand and name its folder.")


def client() -> Any:
    """The package huggingface_hub.

    Raises:
        UserError: where it is not installed.
    """
    return imported("huggingface_hub", "hub", "the hub is reached by huggingface_hub:")


@contextlib.contextmanager
def refusals(key: str, name: str) -> Iterator[None]:
    """What the hub or the network refuses, in a sentence that begins with `key`."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise UserError(f"{key}: {name} needs to know who you are; log in with hf auth login.") from None
    except (OSError, ValueError, errors.HTTPError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{key}: the hub does not give {name} ({said[:300]}).") from None
