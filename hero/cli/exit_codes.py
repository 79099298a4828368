"""Exit codes of ``hero``. Scripts depend on them; `hero.cli.reference` documents them."""

from __future__ import annotations

import enum

from hero.errors import HeroError


class ExitCode(enum.IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    """Something went wrong that has no code of its own."""
    USAGE = 2
    """The command line, or the value of an option, is wrong."""
    NOT_FOUND = 3
    """No such VM, node, image, token, operation or route."""
    NOT_ALLOWED = 4
    """No identity, not the right to do this, or a peer whose certificate cannot be trusted."""
    UNAVAILABLE = 5
    """A service or node cannot be reached, or has no room; trying again later may help."""
    CONFLICT = 6
    """The thing is in a state in which this cannot be done, or its name is taken."""
    TIMED_OUT = 7
    """No answer in time, or the operation goes on longer than the command waits."""
    INTERRUPTED = 130
    """Ctrl-C."""


_BY_KIND = {
    "invalid_params": ExitCode.USAGE,
    "method_not_found": ExitCode.FAILED,
    "not_found": ExitCode.NOT_FOUND,
    "node_unknown": ExitCode.NOT_FOUND,
    "unauthenticated": ExitCode.NOT_ALLOWED,
    "forbidden": ExitCode.NOT_ALLOWED,
    "ca_mismatch": ExitCode.NOT_ALLOWED,
    "peer_refused": ExitCode.NOT_ALLOWED,
    "certificate_refused": ExitCode.NOT_ALLOWED,
    "join_token_unknown": ExitCode.NOT_ALLOWED,
    "join_token_used": ExitCode.NOT_ALLOWED,
    "join_token_expired": ExitCode.NOT_ALLOWED,
    "join_token_other_cluster": ExitCode.NOT_ALLOWED,
    "join_token_invalid": ExitCode.USAGE,
    "unavailable": ExitCode.UNAVAILABLE,
    "node_unreachable": ExitCode.UNAVAILABLE,
    "slice_unavailable": ExitCode.UNAVAILABLE,
    "image_unavailable": ExitCode.UNAVAILABLE,
    "no_capacity": ExitCode.UNAVAILABLE,
    "conflict": ExitCode.CONFLICT,
    "name_taken": ExitCode.CONFLICT,
    "request_id_reused": ExitCode.CONFLICT,
    "timeout": ExitCode.TIMED_OUT,
}

_INVALID_PARAMS = -32602


def exit_code_for(error: HeroError) -> ExitCode:
    """The exit code for *error*, by its kind."""
    if error.code == _INVALID_PARAMS:
        return ExitCode.USAGE
    kind = str(error.data.get("remote_kind", error.kind))
    return _BY_KIND.get(kind, ExitCode.FAILED)
