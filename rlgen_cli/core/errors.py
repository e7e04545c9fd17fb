"""Errors that a user can cause and mend; the command line prints them as one sentence and exits with 2."""

import contextlib
import difflib
import logging
import os
import sys
from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)


class UserError(Exception):
    """What is wrong, where, and what would be right, in one sentence."""


def require(holds: bool, message: str) -> None:
    """Raise `UserError(message)` unless `holds`; `message` begins with the key that is wrong."""
    if not holds:
        raise UserError(message)


def printable(text: str) -> str:
    """`text` with what a terminal would obey instead of show, such as line feeds and escapes, written as in Python."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def reason_of(error: BaseException) -> str:
    """What another library's exception says, in one line of at most 160 characters."""
    said = " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")
    return said[:160] or type(error).__name__


def described(error: BaseException) -> str:
    """An exception's kind and message, in one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@contextlib.contextmanager
def faults_as(said: str) -> Iterator[None]:
    """Whatever fails within this, for any reason, is a UserError that begins with `said` and ends with the reason."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        log.debug("%s", said, exc_info=error)
        raise UserError(f"{said} ({described(error)}).") from None


def reader_gone() -> None:
    """Let what is printed from here on vanish, after a BrokenPipeError: whoever read the output has closed it, as
    `rlgen list | head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def nearest(word: str, valid: Iterable[str]) -> str:
    """«did you mean …» for an unknown `word`: the closest valid names, or all of them when none is close."""
    names = sorted(set(valid))
    if not names:
        return "nothing can be set there."
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"valid are: {', '.join(names)}."
