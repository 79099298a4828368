"""What ``hero up`` runs for each of its processes: ``twistd`` that ends with its supervisor.

``python -m hero.cli.child SUPERVISOR_PID hero-router …`` asks the kernel for SIGTERM when the
supervisor dies, however it dies, and goes on as ``twistd -n --pidfile= hero-router …``. VMs are
in sessions of their own and run on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Run the ``twistd`` plugin that the command line names."""
    supervisor, *arguments = sys.argv[1:]
    os.setpgrp()  # Ctrl-C is for the supervisor, which stops its processes in order.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(supervisor):
        sys.exit(0)
    os.environ["HERO_SUPERVISOR"] = supervisor  # whom a router asks for its successor
    from twisted.scripts import twistd

    sys.argv = ["twistd", "-n", "--pidfile=", *arguments]
    twistd.run()


if __name__ == "__main__":
    main()
