"""Complete checkpoints in parts, written atomically, checked by digest, free of pickle; and the cache folder.

A checkpoint is a folder with a folder for each part (`policy`, `training`, `streams`), which holds one safetensors file
per component and `state.json` with everything that is no tensor; `manifest.json` has the SHA-256 of every file. It is
written under another name, synced, then renamed: a killed run leaves either the whole checkpoint or none. Whoever needs
one part reads that part alone.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from rlgen_cli.core import migrations
from rlgen_cli.core.capacity import memory
from rlgen_cli.core.errors import UserError, described
from rlgen_cli.core.files import read_bytes, read_json, sync, write_synced

log = logging.getLogger(__name__)
TENSOR, BYTES, NUMBERED = "__tensor__", "__bytes__", "__numbered__"


def cache_folder() -> Path:
    """Where downloads and trained helpers are kept: $RLGEN_CACHE, else ~/.cache/rlgen."""
    return Path(os.environ.get("RLGEN_CACHE") or Path.home() / ".cache" / "rlgen")


def save(folder: Path, parts: dict[str, dict[str, Any]]) -> None:
    """Write a checkpoint: parts by name, each of components by name, each a state dict (nested dicts and lists of
    tensors, bytes and plain values)."""
    files: dict[str, bytes] = {}
    for part, components in parts.items():
        plain = {}
        for name, component in components.items():
            tensors: dict[str, Tensor] = {}
            plain[name] = _unravel(component, name, tensors)
            if tensors:
                files[f"{part}/{name}.safetensors"] = save_tensors(tensors)
        files[f"{part}/state.json"] = json.dumps(plain, indent=1).encode()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"format": migrations.FORMAT, "sha256": digests, "digest": _digest_of(digests)}
    files["manifest.json"] = json.dumps(manifest, indent=1).encode()
    partial = folder.with_name(f".partial_{folder.name}_{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had this number
    try:
        for part in parts:
            (partial / part).mkdir(parents=True)
        for name, content in files.items():
            write_synced(partial / name, content)
        for part in parts:
            sync(partial / part)
        sync(partial)
        _replace(folder, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # what a failure left half-written


def load(
    folder: Path, part: str, device: torch.device | str, only: Collection[str] | None = None
) -> dict[str, Any]:  # fmt: skip
    """The components of one part of a checkpoint, each of its files checked against the manifest; tensors are on the
    device, bytes stay bytes.

    Args:
        only: components by name, where not all are needed; the files of others are not read.

    Raises:
        UserError: for a missing or damaged file, or a checkpoint of another version.
    """
    found, digests = _manifest(folder)
    contents = {
        name.partition("/")[2]: _content(folder, name, digest)
        for name, digest in digests.items()
        if name.partition("/")[0] == part and (only is None or Path(name).stem in {"state", *only})
    }
    if "state.json" not in contents:
        raise UserError(f"checkpoint: {folder} has no part {part}.")
    try:
        components = {}
        for name, tree in json.loads(contents["state.json"]).items():
            if only is not None and name not in only:
                continue
            content = contents.get(f"{name}.safetensors")
            tensors = {} if content is None else load_tensors(content)
            components[name] = _ravel(tree, tensors, device)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise UserError(f"checkpoint: {folder / part} is none that rlgen wrote ({described(error)[:100]}).") from None
    return migrations.current_part(part, components, found)


def steps(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step_*") if path.name.removeprefix("step_").isdigit())


def newest(run: Path, part: str | None = None) -> Path:
    """The newest checkpoint of `run` that is intact, or whose `part` is, where no other is needed; damaged ones are
    named in a warning and passed over."""
    for folder in reversed(steps(run)):
        try:
            check(folder, part)
            return folder
        except UserError as error:
            log.warning("%s Trying the one before.", error)
    raise UserError(f"run: {run} holds no intact checkpoint.")


def intact(folder: Path) -> bool:
    """Whether there is a whole checkpoint."""
    try:
        check(folder)
    except UserError:
        return False
    return True


def check(folder: Path, part: str | None = None) -> None:
    """Compare every file of a checkpoint, or of one part, with its digest, so that all come from one intact checkpoint.

    Raises:
        UserError: for a missing or damaged file, or a checkpoint of another version.
    """
    for name, digest in _manifest(folder)[1].items():
        if part in (None, name.partition("/")[0]):
            _content(folder, name, digest)


def prune(run: Path, keep: int, names: Sequence[str]) -> None:
    """Delete all but the newest `keep` checkpoints and those that are named: the best one, and the one that was written
    just now, which is whole whatever became of others."""
    for folder in steps(run)[:-keep]:
        if folder.name not in names:
            shutil.rmtree(folder, ignore_errors=True)  # one that stays does no harm


def recover(folder: Path, name: str = "*") -> None:
    """Clear away what killed processes left in `folder` of the file or checkpoint `name`: a checkpoint that was to be
    replaced gets its name back if the new one did not come to it, and what was half-written goes. Nobody else may be
    writing there."""
    for old in folder.glob(f".old_{name}_*"):
        place = folder / old.name.removeprefix(".old_").rpartition("_")[0]
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, place)
    for partial in folder.glob(f".partial_{name}_*"):
        shutil.rmtree(partial, ignore_errors=True)
    for partial in folder.glob(f".{name}.[0-9]*"):
        if partial.is_file() and partial.suffix[1:].isdigit():
            partial.unlink()


def _unravel(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`tree` with its tensors and bytes moved into `tensors` and named in their place."""
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().cpu().contiguous().clone()
        return {TENSOR: path}
    if isinstance(tree, bytes):
        empty = torch.empty(0, dtype=torch.uint8)
        tensors[path] = torch.frombuffer(bytearray(tree), dtype=torch.uint8) if tree else empty
        return {BYTES: path}
    if isinstance(tree, dict):
        inner = {str(key): _unravel(value, f"{path}/{key}", tensors) for key, value in tree.items()}
        return {NUMBERED: inner} if tree and all(isinstance(key, int) for key in tree) else inner
    if isinstance(tree, list | tuple):
        return [_unravel(value, f"{path}/{i}", tensors) for i, value in enumerate(tree)]
    return tree


def _ravel(tree: Any, tensors: dict[str, Tensor], device: torch.device | str) -> Any:
    """The inverse of `_unravel`; tuples come back as lists."""
    if isinstance(tree, dict):
        if TENSOR in tree:
            return tensors[tree[TENSOR]].to(device)
        if BYTES in tree:
            return tensors[tree[BYTES]].numpy().tobytes()
        if NUMBERED in tree:
            return {int(key): _ravel(value, tensors, device) for key, value in tree[NUMBERED].items()}
        return {key: _ravel(value, tensors, device) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_ravel(value, tensors, device) for value in tree]
    return tree


def _content(folder: Path, name: str, digest: str) -> bytes:
    """A file of a checkpoint, as the manifest has it."""
    content = read_bytes(folder / name, memory(), "checkpoint")
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"checkpoint: {folder / name} is damaged (its SHA-256 is not the manifest's).")
    return content


def _manifest(folder: Path) -> tuple[int, dict[str, str]]:
    """A checkpoint's format, and the SHA-256 of each file by its path in the checkpoint (part/file)."""
    path = folder / "manifest.json"
    if not os.path.exists(path):
        raise UserError(f"checkpoint: there is no {path}; name a run folder or a checkpoint folder.")
    manifest = read_json(path, "checkpoint")
    found = migrations.readable(manifest.get("format"), f"checkpoint: {path}")
    digests: Any = manifest.get("sha256")
    known = isinstance(digests, dict) and all(
        isinstance(digest, str) and re.fullmatch(r"[^/\\]+/[^/\\.][^/\\]*", name) for name, digest in digests.items()
    )
    if not known:
        raise UserError(f"checkpoint: {path} is damaged (it does not list a checkpoint's files).")
    if found >= 3 and manifest.get("digest") != _digest_of(digests):  # format 2 had none
        raise UserError(f"checkpoint: {path} is damaged (its list is not the one that was written).")
    return found, dict(digests)


def _digest_of(digests: dict[str, str]) -> str:
    """The SHA-256 of a manifest's list of files."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _replace(folder: Path, new: Path) -> None:
    """Give `new` the name `folder`, in the place of what may have it."""
    if folder.exists():
        old = folder.with_name(f".old_{folder.name}_{os.getpid()}")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old)
    else:
        os.replace(new, folder)
    sync(folder.parent)
