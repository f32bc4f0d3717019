"""Ties a command to the process that starts it: `python leash.py PARENT_PID COMMAND...` becomes COMMAND, and the kernel
kills it when the parent dies, however that happens (Linux only; prctl(2), PR_SET_PDEATHSIG).

It is a script of its own because Python code between fork and exec is not safe in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Arm the signal, then exec. Exit status 127 if the command cannot be run."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the line above
        sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
