"""An ONNX graph as a function: it computes, in bounded time and memory, and reads no file but those beside it."""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlgen_cli.core.errors import UserError, reason_of, require
from rlgen_cli.core.files import MIB, open_regular

SECONDS = 60  # that one call may take
MEMORY = 4096 * MIB  # of all graphs in this process
# Where tensors lie in an ONNX file (a protocol buffer, onnx.proto): of each message, its fields that hold messages
# which hold tensors in turn, by number.
MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION, TRAINING = range(8)
INNER: dict[int, dict[int, int]] = {
    MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TRAINING: {1: GRAPH, 2: GRAPH},
}
EXTERNAL = 13  # a tensor's field of pairs that say where it lies: key (1) and value (2)
DEEPEST = 100  # messages in messages, as deep as protocol buffers are read


class Graph(NamedTuple):
    """What was opened."""

    run: Callable[..., Tensor]  # of the inputs, in their order
    latent: int | None  # columns of the first input, where the file says so


def open_graph(file: Path, content: bytes, inputs: int) -> Graph:
    """The graph in `content`, which was read from `file`, with so many inputs; run on the CPU, by onnxruntime.

    Raises:
        UserError: for a file that is no such graph, or whose weights lie in files outside of its folder.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"path: {file} needs onnxruntime; install it with pip install 'rlgen[onnx]'.") from None
    check_external(file, content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is said here
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    limit_memory()
    try:
        # The fallback would try the same again and print why.
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"], enable_fallback=0)
        given, made = session.get_inputs(), session.get_outputs()
    except Exception as error:  # its own exceptions have no common class
        raise UserError(f"path: {file} is no ONNX graph that can run ({reason_of(error)}).") from None
    names = [entry.name for entry in given]
    require(len(names) == inputs and len(made) > 0, f"path: {file} must take {inputs} inputs, and takes {names}.")
    shape = given[0].shape
    length = shape[1] if isinstance(shape, list) and len(shape) > 1 and isinstance(shape[1], int) else None

    def run(*tensors: Tensor) -> Tensor:
        arrays = [part.detach().cpu().numpy() for part in tensors]
        result = in_time(functools.partial(session.run, [made[0].name], dict(zip(names, arrays, strict=True))), file)[0]
        if not isinstance(result, np.ndarray) or result.dtype.kind not in "fiu":
            raise ValueError("its first output is no tensor of real numbers")
        return torch.from_numpy(result).float().to(tensors[0].device)

    return Graph(run, length)


def in_time(run: Callable[[Any], Any], file: Path) -> Any:
    """What `run` returns of run options that end it after SECONDS, since a graph may hold a loop without an end.

    Raises:
        UserError: when it is ended.
        ValueError: for whatever else goes wrong.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    timer = threading.Timer(SECONDS, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return run(options)
    except Exception as error:  # as above
        require(not options.terminate, f"path: {file} takes more than {SECONDS} seconds, the most that one call may.")
        raise ValueError(reason_of(error)) from None
    finally:
        timer.cancel()


@functools.cache
def limit_memory() -> None:
    """Let graphs of this process take at most MEMORY."""
    import onnxruntime

    kind, use = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    info = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, use)
    onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg({"max_mem": MEMORY}))


def check_external(file: Path, content: bytes) -> None:
    """Refuse a graph whose weights lie in files outside of its own folder, or in what is no regular file: some versions
    of onnxruntime read them wherever they are said to be."""
    folder = file.parent.resolve()
    try:
        places = set(external_places(content))
    except ValueError as error:
        raise UserError(f"path: {file} is no ONNX graph that can run ({error}).") from None
    for place in places:
        try:
            inside = (folder / place).resolve().is_relative_to(folder) and not os.path.isabs(place)
            require(inside, f"path: {file} has weights in {place!r}, outside of its folder.")
            open_regular(folder / place).close()
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: of links in a circle
            raise UserError(f"path: {file} has weights in {place!r} ({reason_of(error)}).") from None


def external_places(content: bytes) -> Iterator[str]:
    """Where an ONNX file says that its tensors lie, outside of it.

    Raises:
        ValueError: for what is no protocol buffer.
    """
    waiting = [(MODEL, memoryview(content), 0)]
    while waiting:
        message, data, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"its parts lie in each other more than {DEEPEST} deep")
        for field, value in parts(data):
            if message == TENSOR and field == EXTERNAL:
                pair = dict(parts(value))
                if bytes(pair.get(1, b"")) == b"location":
                    yield os.fsdecode(bytes(pair.get(2, b"")))
            elif field in INNER.get(message, {}):
                waiting.append((INNER[message][field], value, depth + 1))


def parts(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protocol buffer that have a length, and their contents."""
    at = 0
    while at < len(data):
        tag, at = number(data, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            _, at = number(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = number(data, at)
            yield field, data[at : at + length]
            at += length
        else:
            raise ValueError("it is no protocol buffer")
    if at > len(data):
        raise ValueError("it is cut short")


def number(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise ValueError("it is cut short")
