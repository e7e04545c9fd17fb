"""Several hosts on this machine: network namespaces on a bridge, which see each other over a network alone."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

NETWORK = "10.77.0"
ROOT = Path(__file__).parents[2]
numbers = itertools.count()


class Hosts:
    """Hosts by number, each with an address and with processes of its own.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self.name = f"r{os.getpid() % 100_000}x{next(numbers)}"  # names of devices have 15 characters at most
        self.count = count
        self.began: list[subprocess.Popen[str]] = []

    def set_up(self) -> None:
        ip("link", "add", self.name, "type", "bridge")
        ip("link", "set", self.name, "up")
        ip("addr", "add", f"{NETWORK}.1/24", "dev", self.name)
        for i in range(self.count):
            ip("netns", "add", self.host(i))
            names = Path("/etc/netns") / self.host(i)
            names.mkdir(parents=True)
            (names / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # which refuses at once, where none would wait
            ip("link", "add", f"{self.host(i)}v", "type", "veth", "peer", "name", "eth0", "netns", self.host(i))
            ip("link", "set", f"{self.host(i)}v", "master", self.name, "up")
            ip("-n", self.host(i), "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", self.host(i), "link", "set", device, "up")
            ip(
                "-n", self.host(i), "route", "add", "default", "via", f"{NETWORK}.1"
            )  # by which a host finds its address

    def tear_down(self) -> None:
        for i in range(self.count):
            self.kill(i)
        for process in self.began:
            process.wait()
        for i in range(self.count):
            ip("netns", "del", self.host(i), check=False)
            shutil.rmtree(Path("/etc/netns") / self.host(i), ignore_errors=True)
        ip("link", "del", self.name, check=False)

    def host(self, i: int) -> str:
        return f"{self.name}h{i}"

    def address(self, i: int) -> str:
        return f"{NETWORK}.{10 + i}"

    def begin(
        self, i: int, command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """A Python command on a host, working in a folder; what it says is kept."""
        given = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"} | dict(variables or {})
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.host(i), sys.executable, *command], cwd=folder, text=True,
            env=os.environ | given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.began.append(process)
        return process

    def kill(self, i: int) -> None:
        """End everything on a host at once."""
        found = subprocess.run(["ip", "netns", "pids", self.host(i)], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """So many hosts; skipped where the system lets nobody make any, unless RLGEN_TEST_HOSTS says that it must."""
    if not (required := bool(os.environ.get("RLGEN_TEST_HOSTS"))) and (shutil.which("ip") is None or os.geteuid()):
        pytest.skip("network namespaces need ip of iproute2, and root")
    made = Hosts(count)
    try:
        try:
            made.set_up()
        except subprocess.CalledProcessError as error:
            if required:
                raise
            pytest.skip(f"network namespaces cannot be made here ({error.stderr.strip()})")
        yield made
    finally:
        made.tear_down()


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, text=True)
