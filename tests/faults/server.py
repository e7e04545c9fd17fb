"""A process that has imported everything, and forks one for each trial: a trial costs no start of torch.

It reads requests from its standard input, a line of JSON each, and answers with a line: `start` with the child's
number, `wait` with its exit code (−N where signal N ended it), or null while it runs. It has one thread, and so forks
safely; when its input ends, it kills what is left and ends itself.
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what the first optimizer imports

from rlgen_cli.cli import main as cli
from rlgen_cli.config.compose import composed
from rlgen_cli.runs import evaluate_run, pretrain, trainer  # noqa: F401  what a command imports when it runs
from tests.faults.inject import Fault, Injection

CAPABILITY_VERSION = 0x20080522  # of the system call's arguments
PATIENCE = 0.005  # seconds between looks at a child


def serve() -> None:
    """Answer requests until there are no more."""
    from torch.utils.tensorboard.writer import SummaryWriter  # noqa: F401

    torch.set_num_threads(1)
    composed("train", [])  # imports what Hydra needs
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            code = ended(request["wait"], request["seconds"])
            if code is not None:
                children.discard(request["wait"])
            answers.write(json.dumps(code) + "\n")
            continue
        number = os.fork()
        if number == 0:
            answers.close()
            os._exit(trial(request))
        children.add(number)
        answers.write(json.dumps(number) + "\n")
    for number in children:
        os.kill(number, signal.SIGKILL)


def ended(number: int, seconds: float) -> int | None:
    """How a child ended, if it does within some seconds."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(PATIENCE)


def trial(request: dict[str, Any]) -> int:
    """One `rlgen` command, as if its interpreter had been started for it; returns its exit code."""
    os.setsid()
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    sys.argv = ["rlgen", *request["words"]]
    if not request["privileged"]:
        obey_permissions()
    faults = [Fault(**fault) for fault in request["faults"]]
    injection = Injection(faults, Path(request["folder"]), Path(request["report"]))
    injection.install()
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    injection.finish()
    return code


def obey_permissions() -> None:
    """Give up what lets root write everywhere: modes of files and folders count for this process from here on."""
    header, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and ctypes.CDLL(None).capset(header, none) != 0:
        raise OSError("capabilities cannot be given up")


if __name__ == "__main__":
    serve()
