"""The ``hero`` command.

`main` is the entry point; each group of commands has a module named after it. `session` holds the
options that every command takes, `target` finds the service to speak to, `run` runs the reactor
for one command, `output` prints answers, `exit_codes` says how errors become exit codes.
``hero up`` is `up`, which decides what to run (`startup`), under a `supervisor`.

Modules import Twisted, msgspec and rich only where they use them, so that ``hero --help`` and the
shell's completion answer at once.
"""
