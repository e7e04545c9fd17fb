"""Pure functions of tensors, compiled by torch where that was measured to pay.

What is compiled must not change a training's numbers: on the CPU it is kept only where it gives the same bits, so that
it does not matter when, or whether, a run begins to use it.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from rlgen_cli.core.tree import leaves, map_tensors

Signature: TypeAlias = tuple[Any, ...]

PATIENCE = 4.0  # seconds that a function has taken before it is compiled, which takes about as long
# What is scattered into zeros would be looked for at every place.
OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"optimize_scatter_upon_const_tensor": False}
TRIALS = 20  # calls that are timed, of the function as it is and compiled

log = logging.getLogger("rlgen_cli")


def compile_method(owner: Any, name: str, mode: Literal["auto", "always"]) -> None:
    """Let a method of an object be compiled; it is a pure function of tensors, and what else it is given never changes
    but in kind."""
    setattr(owner, name, Compiled(getattr(owner, name), name, mode))


class Compiled:
    """A function of trees of tensors that is compiled when it has taken long enough, once for every set
    of shapes; where gradients flow, it stays as it is.

    Args:
        function: pure, with positional arguments. name: for the line that says what came of it.
        mode: auto measures and keeps what is faster and equal; always compiles at the first call and keeps that.
    """

    def __init__(self, function: Callable[..., Any], name: str, mode: Literal["auto", "always"]) -> None:
        self.function, self.name, self.mode = function, name, mode
        self.patience = PATIENCE if mode == "auto" else 0.0
        self.seconds: dict[Signature, float] = {}  # taken so far
        self.chosen: dict[Signature, Callable[..., Any]] = {}

    def __call__(self, *args: Any) -> Any:
        signature = signature_of(args)
        chosen = self.chosen.get(signature)
        if chosen is None and self.seconds.get(signature, 0.0) >= self.patience:
            chosen = self.chosen[signature] = self._choose(args)
        if chosen is not None:
            return chosen(*args)
        began = time.perf_counter()
        result = self.function(*args)
        self.seconds[signature] = self.seconds.get(signature, 0.0) + time.perf_counter() - began
        return result

    def _choose(self, args: tuple[Any, ...]) -> Callable[..., Any]:
        """The function, compiled or as it is."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in leaves(args)):
            return self.function
        try:
            compiled = compiled_for(self.function, args)
            result, expected = compiled(*args), self.function(*args)
            require_alike(expected, result)
        except Exception as error:  # whatever a compiler, or its absence, may raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
            log.info("compile: %s runs as it is (%s)", self.name, reason)
            return self.function
        if self.mode == "always":
            return compiled
        before, after = took(self.function, args), took(compiled, args)
        same = equal(expected, result)
        kept = same and after < before
        verdict = "is compiled" if kept else "runs as it is"
        other = "" if same else ", with other numbers"
        log.info("compile: %s %s (%.2f ms; compiled %.2f ms%s)", self.name, verdict, before, after, other)
        return compiled if kept else self.function


def compiled_for(function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    """The function, compiled for the device of its arguments: on a GPU its kernels are launched as one CUDA graph, and
    what they give is copied, since the next launch writes where they wrote."""
    if not on_gpu(args):
        return torch.compile(function, fullgraph=True, dynamic=False, options=OPTIONS)
    graphed = torch.compile(function, fullgraph=True, dynamic=False, options=OPTIONS | {"triton.cudagraphs": True})

    def launched(*given: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return map_tensors(Tensor.clone, graphed(*given))

    return launched


def on_gpu(args: tuple[Any, ...]) -> bool:
    """Whether some argument lies on a GPU."""
    return any(tensor.is_cuda for tensor in leaves(args))


def signature_of(args: tuple[Any, ...]) -> Signature:
    """What a compiled function depends on."""
    tensors = ((tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in leaves(args))
    return (torch.is_grad_enabled(), *tensors)


def took(function: Callable[..., Any], args: tuple[Any, ...]) -> float:
    """Milliseconds of a call, the best of some."""
    best = float("inf")
    for _ in range(TRIALS):
        synchronise()
        began = time.perf_counter()
        function(*args)
        synchronise()
        best = min(best, time.perf_counter() - began)
    return best * 1e3


def synchronise() -> None:
    """Wait for what was asked of a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def require_alike(expected: Any, result: Any) -> None:
    """Raise a ValueError where a compiler lost or changed a tensor of the result."""
    wanted, found = ([(tensor.shape, tensor.dtype) for tensor in leaves(tree)] for tree in (expected, result))
    if wanted != found:
        raise ValueError(f"the compiled result has tensors of {found} in the place of {wanted}")


def equal(one: Any, other: Any) -> bool:
    """The same numbers, of trees that are alike: to the bit on the CPU, else nearly."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(torch.equal(a, b) if a.device.type == "cpu" else torch.allclose(a, b) for a, b in pairs)
