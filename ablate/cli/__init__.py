"""The commands. Each imports what it needs when it runs, so that `--help` and `plan` start fast."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys

from trainables.errors import InvalidInput

DONE, SOME_FAILED, WRONG_INPUT, CLUSTER_CANNOT, INTERRUPTED = 0, 1, 2, 3, 130


def main() -> None:
    """Entry point of the script `ablate`; every expected mistake ends in a message and a code."""
    from typer import Abort, BadParameter

    from ablate.cli.commands import app
    from ablate.cli.show import problems

    # UsageError of the copy of click that typer has, or of click where it has none.
    usage_error: type[BadParameter] = BadParameter.__mro__[1]
    signal.signal(signal.SIGINT, _interrupt)
    try:
        code = app(standalone_mode=False)
    except InvalidInput as error:
        problems(error.problems)
        code = WRONG_INPUT
    except usage_error as error:
        error.show()
        code = WRONG_INPUT
    except (KeyboardInterrupt, Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        code = DONE
    except (RuntimeError, OSError) as error:
        said = _outside(error)
        if said is None:
            raise
        print(said, file=sys.stderr)
        code = CLUSTER_CANNOT
    if code == INTERRUPTED:
        again = shlex.join(["ablate", *sys.argv[1:]])
        print(f"Stopped. What is finished is kept; to go on: {again}", file=sys.stderr)
    sys.exit(code or DONE)


def _interrupt(number: int, frame: object) -> None:
    """Ctrl-C: the first ends what runs, in order; a second ends the process where it stands."""
    signal.signal(signal.SIGINT, _end)
    said = "\nStopping; running trials keep their last checkpoint. Ctrl-C again stops at once.\n"
    os.write(2, said.encode())
    raise KeyboardInterrupt


def _end(number: int, frame: object) -> None:
    from ablate.run.processes import end_descendants

    end_descendants()
    os._exit(INTERRUPTED)


def _outside(error: Exception) -> str | None:
    """What to say of an error of the machines, which no text of the user's caused; else None."""
    from ablate.run.store import StoreUnreachable

    if isinstance(error, StoreUnreachable):
        kept = "What is finished is kept; once it answers, the same command goes on."
        return f"The run folder is not to be had: {error}. {kept}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        place = f" at {error.filename}" if error.filename else ""
        return f"No space is left{place}. What is finished is kept; the same command goes on."
    return None
