"""A log observer that kills its process at a step, for ``twistd --logger``.

``HERO_TEST_CRASH_AT`` is the value of ``step`` in the log event at which to die, as by SIGKILL:
nothing is cleaned up, flushed or closed. The step is logged before it is taken.
"""

from __future__ import annotations

import os
import sys

from twisted.logger import ILogObserver, LogEvent, textFileLogObserver
from zope.interface import provider

EXIT_STATUS = 99


def observer() -> ILogObserver:
    """Write the log to standard error until the step comes."""
    crash_at = os.environ["HERO_TEST_CRASH_AT"]
    write = textFileLogObserver(sys.stderr)

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        write(event)
        if event.get("step") == crash_at:
            sys.stderr.flush()
            os._exit(EXIT_STATUS)

    return observe
