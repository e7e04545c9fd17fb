"""`python -m tests.fuzz.run TARGET SECONDS` feeds mutated files to a target, by atheris where it is installed, else by
random changes of the seeds. It fails, and saves the file below outputs/fuzz/TARGET, when anything but UserError escapes,
one file takes more than 10 seconds, or memory grows by more than 2 GiB. `python -m tests.fuzz.run TARGET FILE` reads one
file again."""

import hashlib
import importlib
import logging
import pkgutil
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import tests.fuzz
from rlgen_cli.core.errors import UserError

SLOWEST = 10  # seconds for one file
MOST_GROWTH = 2048  # MiB
LONGEST = 1 << 16  # bytes of a file
TARGETS = sorted(
    module.name for module in pkgutil.iter_modules(tests.fuzz.__path__) if module.name not in ("run", "campaign")
)


class TooSlow(BaseException):
    """One file takes longer than SLOWEST; no `except Exception` stops it."""


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        print(f"usage: python -m tests.fuzz.run TARGET SECONDS|FILE, with a TARGET of {', '.join(TARGETS)}")
        return 2
    name, amount = sys.argv[1:]
    logging.disable(logging.CRITICAL)  # what is left out is said in warnings
    warnings.simplefilter("ignore")
    if not amount.isdecimal():
        guarded(load(name).target, Path(amount).read_bytes())
        return 0
    kept = Path("outputs") / "fuzz" / name
    kept.mkdir(parents=True, exist_ok=True)
    try:
        import atheris
    except ImportError:
        return by_chance(name, int(amount), kept)
    with atheris.instrument_imports(include=["rlgen_cli", "mido", "yaml"]):
        module = load(name)
    corpus = kept / "seeds"
    corpus.mkdir(exist_ok=True)
    for seed in module.seeds():
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    words = {
        "max_total_time": amount, "timeout": SLOWEST, "rss_limit_mb": used() + MOST_GROWTH, "max_len": LONGEST,
        "artifact_prefix": f"{kept}/", "print_final_stats": 1, "verbosity": 0,
    }  # fmt: skip
    flags = [f"-{key}={value}" for key, value in words.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], lambda data: guarded(module.target, data))
    atheris.Fuzz()  # ends the process
    return 0


def load(name: str) -> Any:
    """The target's module."""
    return importlib.import_module(f"tests.fuzz.{name}")


def guarded(target: Callable[[bytes], None], data: bytes) -> None:
    """Call the target; what a user can cause is no fault."""
    try:
        target(bytes(data))
    except UserError as error:
        if not str(error).strip():
            raise


def used() -> int:
    """The most memory that this process has had, MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size >> (20 if sys.platform == "darwin" else 10)


def by_chance(name: str, seconds: int, kept: Path) -> int:
    """Random changes of the seeds, without knowing what they reach."""
    module = load(name)
    rng, seeds = random.Random(0), module.seeds()
    for seed in seeds:
        guarded(module.target, seed)
    begun, memory, done = time.monotonic(), used(), 0
    signal.signal(signal.SIGALRM, _too_slow)
    while time.monotonic() - begun < seconds:
        data = changed(rng, seeds)
        fault = ""
        signal.alarm(SLOWEST)
        try:
            guarded(module.target, data)
        except (Exception, TooSlow):
            fault = traceback.format_exc()
        finally:
            signal.alarm(0)
        done += 1
        if used() - memory > MOST_GROWTH:
            fault = fault or f"memory grew by {used() - memory} MiB"
        if fault:
            path = kept / f"crash-{hashlib.sha1(data).hexdigest()}"
            path.write_bytes(data)
            print(f"{fault}\n{name}: {done} executions, then this one, saved as {path}")
            return 1
    print(f"{name}: {done} executions, memory grew by {used() - memory} MiB")
    return 0


def changed(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A seed with some bytes changed, cut out, repeated, or taken from another seed."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 1:
            del data[at : at + rng.randint(1, 64)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 64)] * rng.choice((1, 2, 50))
        elif kind == 3:
            other = rng.choice(seeds)
            begin = rng.randrange(len(other) + 1)
            data[at:at] = other[begin : begin + rng.randint(1, 64)]
        else:
            data[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", rng.randbytes(4)))
    return bytes(data[:LONGEST])


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {SLOWEST} seconds")


if __name__ == "__main__":
    sys.exit(main())
