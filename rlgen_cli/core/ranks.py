"""One training on several devices: a process each, called a rank, as by `torchrun`. All ranks go the same steps, each
with environments and random streams of its own; what learns has the same weights everywhere, since its gradients are
averaged. With one rank everything here gives back what it is given.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rlgen_cli.core.errors import UserError, described, require
from rlgen_cli.core.launched import processes

T = TypeVar("T")
# After so long without a word from another rank, which may evaluate meanwhile, it is given up.
TIMEOUT = datetime.timedelta(minutes=30)
REASON = "rlgen/reason"  # where in the store the first rank that fails says why


class Place(NamedTuple):
    """Which of the ranks this process is."""

    rank: int
    size: int  # of all ranks
    local_rank: int  # among those of this machine
    local_size: int


class RankLost(UserError):
    """Another rank has ended."""


ALONE = Place(0, 1, 0, 1)
_place = ALONE
_store: Any = None  # what ranks can leave words in for others


def count() -> int:
    """How many ranks there are."""
    return _place.size


def rank() -> int:
    """Which one this is."""
    return _place.rank


def local() -> Place:
    """Which one this is, on its machine, too."""
    return _place


def first() -> bool:
    """Whether this is the rank that writes and speaks for all."""
    return _place.rank == 0


def share(total: int, key: str) -> int:
    """A rank's part of a number that is given for all.

    Raises:
        UserError: where ranks would get different parts.
    """
    require(total % count() == 0, f"{key}: must be a multiple of the {count()} devices, got {total}.")
    return total // count()


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within this, the process is one of the ranks that its launcher has begun. A rank that fails leaves its reason for
    the others.

    Raises:
        UserError: where the others cannot be reached.
    """
    global _place, _store
    if processes() == 1:
        yield
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    lacking = [name for name in names if not os.environ.get(name, "").isdigit()]
    require(not lacking, f"devices: WORLD_SIZE is set, and {', '.join(lacking)} not; torchrun sets all of them.")
    place = Place(*(int(os.environ[name]) for name in names))
    mixed = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))
        store.set_timeout(TIMEOUT)
        backend = "cpu:gloo,cuda:nccl" if mixed else "gloo"
        dist.init_process_group(
            backend, store=dist.PrefixStore("rlgen", store), rank=place.rank, world_size=place.size, timeout=TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"devices: the other processes cannot be reached ({described(error)}).") from error
    _place, _store = place, store
    try:
        yield
        dist.destroy_process_group()
    except BaseException as error:
        if not isinstance(error, RankLost):
            with contextlib.suppress(RuntimeError):  # whoever keeps the store may have ended, too
                said = str(error) if isinstance(error, UserError) else described(error)
                store.set(REASON, f"rank {place.rank}: {said}")
        raise
    finally:
        _place, _store = ALONE, None


def by_first(action: Callable[[], None]) -> None:
    """Let the first rank do something by itself, which the others do not wait for."""
    if first():
        with alone():
            action()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within this, the first rank does something by itself, as if there were no others, which go on meanwhile."""
    global _place
    before, _place = _place, ALONE
    try:
        yield
    finally:
        _place = before


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around what all ranks do together.

    Raises:
        RankLost: where another one has ended.
    """
    try:
        yield
    except RuntimeError as error:
        lost = (
            f"devices: another of the {count()} processes of this run has ended; the checkpoints before that are "
            "whole, and resume= goes on from the newest."
        )
        raise RankLost(reason_of_another() or lost) from error


def leave_word(key: str, word: str) -> None:
    """Let the launcher know something."""
    if _store is not None:
        _store.set(key, word)


def reason_of_another() -> str:
    """Why another rank has failed; "" where it could not say so."""
    with contextlib.suppress(RuntimeError):
        if _store.check([REASON]):
            return str(_store.get(REASON).decode())
    return ""


def total(x: Tensor) -> Tensor:
    """The sum over all ranks, without a gradient."""
    return x if count() == 1 else _reduced(x, dist.ReduceOp.SUM)


def mean(x: Tensor) -> Tensor:
    """The mean over all ranks, without a gradient."""
    return x if count() == 1 else total(x) / count()


def least(x: Tensor) -> Tensor:
    """The minimum over all ranks, without a gradient."""
    return x if count() == 1 else _reduced(x, dist.ReduceOp.MIN)


def moments(x: Tensor, correction: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of all numbers of x on all ranks, which have as many each."""
    if count() == 1:
        return x.mean(), x.std(correction=correction)
    centre = mean(x.mean())
    return centre, (total((x - centre).square().sum()) / (x.numel() * count() - correction)).sqrt()


def means(values: dict[str, float]) -> dict[str, float]:
    """The mean of each number over all ranks, which have the same names."""
    if count() == 1 or not values:
        return values
    found = mean(torch.tensor(list(values.values()), dtype=torch.float64))
    return dict(zip(values, found.tolist(), strict=True))


class AnyRank:
    """Whether something has been so on any rank, some calls ago: all learn it at the same call, and none waits for the
    others, as an answer at once would make it."""

    INTERVAL = 4  # calls from a question to its answer, and to the next question

    def __init__(self) -> None:
        self.calls, self.answer = 0, False
        self.asked: tuple[Tensor, Any] | None = None  # what is being answered, and what to wait for

    def __call__(self, flag: bool) -> bool:
        """Ask; all ranks must."""
        if count() == 1:
            return flag
        if self.calls % self.INTERVAL == 0:
            self.finish()
            question = torch.tensor(int(flag))
            with together():
                self.asked = question, dist.all_reduce(question, dist.ReduceOp.MAX, async_op=True)
        self.calls += 1
        return self.answer

    def finish(self) -> None:
        """Wait for the answer that is to come."""
        if self.asked is not None:
            answer, work = self.asked
            with together():
                work.wait()
            self.answer, self.asked = bool(answer), None


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Make every gradient the mean over all ranks: that of one process on the joined batch, where each rank's loss is a
    mean over its own part."""
    if count() == 1:
        return
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joined = mean(torch.cat([grad.flatten() for grad in grads]))  # one message
    for grad, part in zip(grads, joined.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


class MeanOfRanks(torch.autograd.Function):
    """The mean over all ranks, whose gradient is that of the sum of all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return mean(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return mean(grad)


def from_first(make: Callable[[], T]) -> T:
    """What the first rank makes, on all; tensors in it must lie on the CPU.

    Raises:
        UserError: on all, where the first raises one.
    """
    if count() == 1:
        return make()
    box: list[Any] = [None]
    if first():
        try:
            with alone():
                box = [(make(), "")]
        except UserError as error:
            box = [(None, str(error))]
    with together():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    made, wrong = box[0]
    if wrong:
        raise UserError(wrong)
    return made


def gathered(value: T) -> list[T]:
    """Every rank's value, on the first rank; [] on the others. Tensors in it must lie on the CPU."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    with together():
        dist.gather_object(value, found if first() else None, dst=0)
    return found if first() else []


def scattered(values: list[T]) -> T:
    """The first rank's values, one for each; what the others give is not looked at."""
    if count() == 1:
        return values[0]
    box: list[Any] = [None]
    with together():
        dist.scatter_object_list(box, values if first() else None, src=0)
    return box[0]


def _reduced(x: Tensor, op: Any) -> Tensor:
    with together(), torch.no_grad():
        x = x.detach().clone()
        dist.all_reduce(x, op)
    return x
