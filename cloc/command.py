"""How every command ends: its work's status, or one line on stderr and a status that says what kind of end it was.

0    done                                   2    a mistake in what was asked or in a file; a full disk
1    the work itself failed                 130  Ctrl-C            143  SIGTERM, where the work saves first
"""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from collections.abc import Callable

MISTAKE, FAILED, INTERRUPTED, PIPE_CLOSED = 2, 1, 130, 141
LONGEST = 1000
"""Characters of a line that is told; of a longer one, such as a hostile value of 100,000, both ends are."""
GOES_ON = "the same command goes on from here"


def run(work: Callable[[], int | None], after: str = "nothing is left half written", loads_models: bool = True) -> int:
    """Do a command's work; whatever a user or a machine can get wrong becomes one line.

    Args:
        work: returns the exit status, None for 0. It raises ValueError and OSError for mistakes, FloatingPointError
            where figures have left the numbers, and cleans up behind itself with `finally` on the way.
        after: what is said after Ctrl-C: what became of the work, and what to type next; see `GOES_ON`.
        loads_models: whether names of the hub may be asked for; without, no library is loaded.

    Returns:
        The exit status.
    """
    if loads_models:
        from cloc import hub

        hub.fail_fast()
    try:
        return work() or 0
    except BrokenPipeError:  # `| head` has seen enough; Python flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (ValueError, OSError) as error:
        return say(f"error: {describe_error(error)}", MISTAKE)
    except MemoryError as error:
        return say(f"error: not enough memory ({error or 'for Python'}); ask for less at a time", MISTAKE)
    except FloatingPointError as error:
        return say(f"stopped: {error}", FAILED)
    except KeyboardInterrupt:
        return say(f"stopped by Ctrl-C; {after}", INTERRUPTED)


def say(line: str, status: int) -> int:
    """Print a line on stderr (or several), without what would steer a terminal; returns the status."""
    print("\n".join(shortened(printable(one)) for one in line.split("\n")), file=sys.stderr, flush=True)
    return status


def describe_error(error: Exception) -> str:
    """What an error says to a user; a full disk is called that."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" under {error.filename}" if error.filename else ""
        return f"the disk is full{where} ({error.strerror}); make room and run the same command again"
    return str(error) or type(error).__name__


def shortened(line: str) -> str:
    """A line with its middle left out where it is longer than `LONGEST` characters; what to type next stands last."""
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def printable(text: str) -> str:
    """A text of somebody's file for a terminal: control characters, which could steer it, as Python would write them.

    Line breaks and tabs stay; so do all letters. Lone surrogates are written as such, since no terminal takes them.
    """
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
