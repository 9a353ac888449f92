"""The commands. Each imports what it needs when it runs, so that `--help` and `plan` start fast."""

from __future__ import annotations

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
    try:
        code = app(standalone_mode=False)
    except InvalidInput as error:
        problems(error.problems)
        code = WRONG_INPUT
    except usage_error as error:
        error.show()
        code = WRONG_INPUT
    except (KeyboardInterrupt, Abort):
        print("\nStopped. What is finished is kept; the same command goes on.", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        code = DONE
    sys.exit(code or DONE)
