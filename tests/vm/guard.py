"""Runs a program until it ends, its time is over, or whoever started the guard is gone.

    guard.py SECONDS DESCRIPTOR PROGRAM [ARGUMENT ...]

DESCRIPTOR is the reading end of a pipe whose writing end only the starter holds: however the
starter ends, its end of the pipe closes. The guard has to be started in a session of its own; the
program is in its process group, and one signal to the group ends both. The exit code is the
program's, 128 + N where signal N ended it, or one of those below, after a line on standard error.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

TIME_IS_OVER: Final = 124  # as timeout(1) has it
STARTER_IS_GONE: Final = 125


def main(arguments: Sequence[str]) -> int:
    """Run the program, and return the exit code."""
    seconds, descriptor, *command = arguments
    deadline = time.monotonic() + float(seconds)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    ended = os.pidfd_open(process.pid)
    # What comes first is seen by poll, which unlike select takes any descriptor.
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(int(descriptor), select.POLLIN)
    ready = {event[0] for event in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
    if ended in ready:
        code = process.wait()
        return code if code >= 0 else 128 - code
    process.send_signal(signal.SIGKILL)
    process.wait()
    if ready:
        print("guard: whoever started this is gone", file=sys.stderr)  # noqa: T201
        return STARTER_IS_GONE
    print(f"guard: not done in {seconds} s", file=sys.stderr)  # noqa: T201
    return TIME_IS_OVER


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
