"""The reconciler at work: at start, every few seconds, and when a guest changes on its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hero.compute.actor import VmActor
from hero.compute.guest import GuestObservation
from hero.compute.interfaces import IHypervisor
from hero.compute.reconciler import Action, plan, unknown_guests
from hero.compute.record import VmRecord
from hero.compute.store import VmStore
from hero.errors import HeroError

INTERVAL = 10.0


class ReconcileLoop:
    """Keeps what is written and what is true together. One round at a time."""

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        store: VmStore,
        hypervisor: IHypervisor,
        actor: VmActor,
        interval: float = INTERVAL,
    ) -> None:
        self._store = store
        self._hypervisor = hypervisor
        self._actor = actor
        self._interval = interval
        self._one = DeferredLock()
        self._queued = False
        self._calls = LoopingCall(self._run_round)
        self._calls.clock = clock
        self._unsubscribe: Callable[[], None] | None = None
        self.unknown_guests: list[str] = []
        self.problem: str | None = None

    def start(self) -> None:
        """Go on in rounds from now."""
        self._unsubscribe = self._hypervisor.subscribe(self._guest_changed)
        self._calls.start(self._interval, now=False)

    def stop(self) -> None:
        """No more rounds."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._calls.running:
            self._calls.stop()

    async def begin(self) -> Deferred[list[tuple[bool, None]]]:
        """Look once and begin what is to be done; the answer fires when all of that was tried."""
        await self._one.acquire()
        try:
            return DeferredList(await self._round())
        finally:
            self._one.release()

    async def _round(self) -> list[Deferred[None]]:
        """Look, and begin what is to be done."""
        # Records first: a guest that changes after them is seen, one that changed before them
        # has a newer revision than the plan.
        records = {record.sid: record for record in await self._store.all()}
        seen = await self._hypervisor.observe()
        self._note_unknown(unknown_guests(records.values(), seen))
        return [
            Deferred.fromCoroutine(self._act(records[sid], list(actions)))
            for sid, actions in groupby(plan(records.values(), seen), lambda action: action.sid)
            if not self._actor.busy(sid)
        ]

    async def _act(self, record: VmRecord, actions: list[Action]) -> None:
        try:
            await self._actor.perform(record, actions)
        except HeroError as error:
            self._log.warn("{vm}: {error}", vm=record.sid, error=error.detail)
        except Exception:
            self._log.failure("{vm} could not be reconciled", vm=record.sid)

    def _note_unknown(self, sids: list[str]) -> None:
        for sid in sids:
            if sid not in self.unknown_guests:
                self._log.warn("guest {vm} is here and in no record; it is left alone", vm=sid)
        self.unknown_guests = sids

    def _guest_changed(self, sid: str, seen: GuestObservation) -> None:
        self._log.info(
            "guest {vm} is {state}: {reason}", vm=sid, state=seen.state.value, reason=seen.reason
        )
        if not self._queued:
            self._queued = True
            self._run_round()

    def _run_round(self) -> Deferred[None]:
        async def run() -> None:
            await self._one.acquire()
            self._queued = False
            try:
                await self._round()
                self.problem = None
            except Exception as error:
                self._log.failure("a round of the reconciler failed")
                self.problem = f"the last look at the guests failed: {error}"
            finally:
                self._one.release()

        return Deferred.fromCoroutine(run())
