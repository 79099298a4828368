"""Starting operations and following them until they end."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from hero.cli.session import Session
from hero.cli.target import Services
from hero.errors import HeroError, InternalError, Timeout, Unavailable
from hero.operations import Operation, OperationState

#: How long one question after an operation is held back by the service, in seconds.
_POLL = 2.0
#: Questions that may fail in a row while an operation is followed.
_PATIENCE = 5

#: Starts an operation: takes the keywords that the framework adds.
Start = Callable[..., Awaitable[Operation]]


async def run_operation(
    session: Session, services: Services, start: Start, *, wait: bool, timeout: float, saying: str
) -> Operation:
    """Start an operation and, with *wait*, follow it for up to *timeout* seconds.

    The start carries a request id and is repeated once when its answer is lost. Raises the
    operation's own error when it failed, and `Timeout` when it goes on.
    """
    request_id = str(uuid.uuid4())
    try:
        operation = await start(request_id=request_id, wait=False)
    except Timeout:
        operation = await start(request_id=request_id, wait=False)
    if not wait:
        return operation
    session.interrupted_message = (
        f"interrupted; {operation.sid} goes on: hero operation show {operation.sid}"
    )
    return await follow(services, operation, timeout=timeout, saying=saying)


async def follow(
    services: Services, operation: Operation, *, timeout: float, saying: str
) -> Operation:
    """Wait until *operation* has ended, showing its progress where stderr is a terminal."""
    deadline = services.reactor.seconds() + timeout
    failures = 0
    with _progress(saying) as report:
        while not operation.state.ended:
            report(operation)
            left = deadline - services.reactor.seconds()
            if left <= 0:
                raise Timeout(
                    f"{operation.sid} is still {operation.state} after {timeout:g} s",
                    hint=f"it goes on: hero operation show --wait {operation.sid}",
                    data={"operation": operation.sid},
                )
            try:
                operation = await services.compute.get_operation(
                    sid=operation.sid, wait=min(_POLL, left)
                )
                failures = 0
            except (Unavailable, Timeout):
                failures += 1
                if failures > _PATIENCE:
                    raise
                await _sleep(services.reactor, 1.0)
    return _succeeded(operation)


def _succeeded(operation: Operation) -> Operation:
    if operation.state is OperationState.FAILED:
        if operation.error:
            raise HeroError.from_data({**operation.error, "operation": operation.sid})
        raise InternalError(f"{operation.sid} failed and does not say why")
    if operation.state is OperationState.CANCELLED:
        raise InternalError(f"{operation.sid} was cancelled")
    return operation


async def _sleep(reactor: Any, seconds: float) -> None:
    from twisted.internet.task import deferLater

    await deferLater(reactor, seconds)


@contextlib.contextmanager
def _progress(saying: str) -> Iterator[Callable[[Operation], None]]:
    if not sys.stderr.isatty():
        yield lambda operation: None
        return
    from rich.console import Console

    with Console(stderr=True).status(saying) as status:

        def report(operation: Operation) -> None:
            share = f" {operation.progress:.0%}" if operation.progress else ""
            message = f": {operation.message}" if operation.message else ""
            status.update(f"{saying}{share}{message}")

        yield report
