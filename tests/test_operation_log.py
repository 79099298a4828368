"""`hero.operation_log` and `hero.rpc.idempotency`."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail
from twisted.trial.unittest import SynchronousTestCase

from hero.errors import Conflict, InternalError, NotFound, RequestIdReused, Unavailable
from hero.identity.claims import Caller, Claim
from hero.operation_log import RETENTION, OperationHandle, OperationLog, call_digest
from hero.operations import Operation, OperationCancelled, OperationState
from hero.rpc.declare import Call, methods_of
from hero.rpc.dispatch import ServedMethod
from tests.rpc.pets import DatabaseTestCase, Pet, PetService, call

TRAIN = methods_of(PetService)["train"]
ADD = methods_of(PetService)["add_pet"]
KEY = methods_of(PetService)["make_key"]


class OperationTestCase(DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.begun = 0
        self.release: Deferred[Any] = Deferred()

    async def work(self, handle: OperationHandle) -> Any:
        """Take until released."""
        self.begun += 1
        return await self.release

    async def run_op(self, work: Any = None, **options: Any) -> Operation:
        request_id = options.pop("request_id", None)
        params = options.pop("params", {"name": "rex"})
        return await self.log.run(call(request_id), TRAIN, params, work or self.work, **options)


class OperationTests(OperationTestCase):
    async def test_result_is_kept_in_wire_form(self) -> None:
        self.release.callback(Pet(name="rex"))
        operation = await self.run_op()
        self.assertEqual(operation.state, OperationState.SUCCEEDED)
        self.assertEqual(operation.result, {"name": "rex", "legs": 4})
        self.assertEqual((operation.kind, operation.user), ("train", "user:alice"))
        self.assertEqual((operation.progress, operation.node_sid), (1.0, "node-0123456789"))
        self.reopen()
        self.assertEqual(await self.log.get(operation.sid), operation)

    async def test_not_waiting_gives_the_operation_under_way(self) -> None:
        operation = await self.run_op(wait=False)
        self.assertEqual(operation.state, OperationState.RUNNING)
        self.release.callback("done")
        self.assertEqual((await self.log.get(operation.sid, 60)).result, "done")

    async def test_row_is_written_before_the_work_starts(self) -> None:
        async def work(handle: OperationHandle) -> str:
            rows = await self.log.list()
            return rows[0].sid

        operation = await self.run_op(work)
        self.assertEqual(operation.result, operation.sid)

    async def test_wait_ends_with_its_timeout(self) -> None:
        operation = await self.run_op(wait=False)
        waiting = Deferred.fromCoroutine(self.log.get(operation.sid, 10))
        await self.database.run(lambda c: None)
        await self.database.run(lambda c: None)
        self.assertNoResult(waiting)
        self.clock.advance(10)
        self.assertEqual((await waiting).state, OperationState.RUNNING)
        self.release.callback(None)
        await self.log.get(operation.sid, 60)

    async def test_failure_is_raised_to_the_one_who_waits(self) -> None:
        self.release.errback(NotFound("no pet", hint="buy one"))
        with self.assertRaises(NotFound) as caught:
            await self.run_op()
        error = caught.exception
        self.assertEqual((error.detail, error.hint), ("no pet", "buy one"))
        operation = await self.log.get(error.data["operation"])
        self.assertEqual(operation.state, OperationState.FAILED)
        self.assertEqual(operation.error["kind"], "not_found")

    async def test_crash_leaks_nothing(self) -> None:
        self.release.errback(RuntimeError("hunter2"))
        with self.assertRaises(InternalError) as caught:
            await self.run_op()
        self.assertNotIn("hunter2", str(caught.exception.to_data()))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_result_that_has_no_wire_form_is_a_failure(self) -> None:
        self.release.callback(object())
        with self.assertRaises(InternalError):
            await self.run_op()
        self.flushLoggedErrors(TypeError)

    async def test_updates_are_seen_and_the_target_is_durable(self) -> None:
        async def work(handle: OperationHandle) -> None:
            await handle.update(progress=0.5, message="half", target="vm-1")
            await self.release

        operation = await self.run_op(work, wait=False)
        while operation.target is None:
            operation = await self.log.get(operation.sid)
        self.assertEqual((operation.progress, operation.message), (0.5, "half"))
        self.reopen()
        (interrupted,) = await self.log.interrupted()
        self.assertEqual((interrupted.sid, interrupted.target), (operation.sid, "vm-1"))

    async def test_list_is_filtered_and_newest_first(self) -> None:
        self.release.callback(None)
        first = await self.run_op(target="a")
        second = await self.run_op(target="b")
        sids = [operation.sid for operation in await self.log.list()]
        self.assertEqual(sids, [second.sid, first.sid])
        self.assertEqual(len(await self.log.list(limit=1)), 1)
        self.assertEqual([o.sid for o in await self.log.list(target="a")], [first.sid])
        self.assertEqual(await self.log.list(context="dev"), [])
        self.assertEqual(await self.log.list(state="running"), [])
        self.assertEqual(len(await self.log.list(context="root", state="succeeded")), 2)

    async def test_unknown_operation(self) -> None:
        with self.assertRaises(NotFound):
            await self.log.get("op-0000000000")

    async def test_each_change_is_an_event(self) -> None:
        events = self.events.subscribe()

        async def work(handle: OperationHandle) -> None:
            await handle.update(message="going")

        await self.run_op(work)
        seen = [(await events.__anext__()).data for _ in range(3)]
        self.assertEqual([e["state"] for e in seen], ["running", "running", "succeeded"])
        self.assertEqual([e["message"] for e in seen], ["", "going", "going"])
        self.assertEqual({e["context"] for e in seen}, {"root"})

    async def test_number_under_way_is_bounded(self) -> None:
        self.log = OperationLog(self.database, self.clock, max_running=1)
        operation = await self.run_op(wait=False)
        with self.assertRaises(Unavailable):
            await self.run_op()
        self.release.callback(None)
        await self.log.get(operation.sid, 60)
        await self.run_op()

    async def test_number_begun_at_once_is_bounded(self) -> None:
        self.log = OperationLog(self.database, self.clock, max_running=2)
        begun = [Deferred.fromCoroutine(self.run_op(wait=False)) for _ in range(5)]
        outcomes = await DeferredList(begun, consumeErrors=True)
        self.assertEqual([ok for ok, _ in outcomes], [True] * 2 + [False] * 3)
        self.assertEqual(self.begun, 2)

    async def test_end_that_could_not_be_written_down_is_known(self) -> None:
        """A disk that is full for a while does not leave an operation under way for ever."""
        operation = await self.run_op(wait=False)
        waiting = Deferred.fromCoroutine(self.log.get(operation.sid, 60))
        await self.database.run(lambda c: None)
        full = Unavailable("the disk is full")
        with mock.patch.object(self.log, "_write", lambda _: fail(full)):
            self.release.callback("done")
        self.assertEqual((await waiting).result, "done")
        with self.assertRaises(Conflict) as caught:
            await self.log.cancel(operation.sid)
        self.assertIn("succeeded already", caught.exception.detail)
        self.assertEqual(await self.log.interrupted(), [])
        await self.run_op()
        self.reopen()
        self.assertEqual((await self.log.get(operation.sid)).result, "done")
        self.flushLoggedErrors(Unavailable)

    async def test_old_operations_are_forgotten(self) -> None:
        self.release.callback(None)
        old = await self.run_op()
        self.clock.advance(RETENTION + 1)
        await self.run_op()
        with self.assertRaises(NotFound):
            await self.log.get(old.sid)


class CancelTests(OperationTestCase):
    async def test_cancelled_work_stops(self) -> None:
        undone = []

        async def work(handle: OperationHandle) -> None:
            try:
                await self.release
            except CancelledError:
                undone.append(handle.sid)
                raise

        operation = await self.run_op(work, wait=False)
        cancelled = await self.log.cancel(operation.sid)
        self.assertEqual(cancelled.state, OperationState.CANCELLED)
        self.assertEqual(undone, [operation.sid])

    async def test_the_one_who_waits_learns_of_it(self) -> None:
        waiting = Deferred.fromCoroutine(self.run_op())
        while not self.begun:
            await self.database.run(lambda c: None)
        (operation,) = await self.log.list()
        await self.log.cancel(operation.sid)
        await self.assertFailure(waiting, OperationCancelled)

    async def test_transaction_under_way_is_finished_first(self) -> None:
        reached: list[str] = []

        async def work(handle: OperationHandle) -> None:
            cancelling.append(Deferred.fromCoroutine(self.log.cancel(handle.sid)))
            while not handle.cancel_requested:
                await self.database.run(lambda c: None)
            await self.database.run(lambda c: reached.append("written"))
            await handle.update(message="never")
            reached.append("went on")

        cancelling: list[Deferred[Operation]] = []
        await self.run_op(work, wait=False)
        while not cancelling:
            await self.database.run(lambda c: None)
        operation = await cancelling[0]
        self.assertEqual(operation.state, OperationState.CANCELLED)
        self.assertEqual(reached, ["written"])

    async def test_committed_work_goes_on(self) -> None:
        async def work(handle: OperationHandle) -> str:
            handle.commit()
            return await self.release

        operation = await self.run_op(work, wait=False)
        with self.assertRaises(Conflict):
            await self.log.cancel(operation.sid)
        self.release.callback("done")
        self.assertEqual((await self.log.get(operation.sid, 60)).result, "done")

    async def test_ended_operation_cannot_be_cancelled(self) -> None:
        self.release.callback(None)
        operation = await self.run_op()
        with self.assertRaises(Conflict):
            await self.log.cancel(operation.sid)


class RequestIdTests(OperationTestCase):
    async def test_repeated_call_acts_once(self) -> None:
        self.release.callback("done")
        first = await self.run_op(request_id="r1")
        second = await self.run_op(request_id="r1")
        self.assertEqual((first, self.begun), (second, 1))

    async def test_repeated_call_waits_for_the_one_under_way(self) -> None:
        first = await self.run_op(request_id="r1", wait=False)
        second = Deferred.fromCoroutine(self.run_op(request_id="r1"))
        self.release.callback("done")
        self.assertEqual((await second).sid, first.sid)
        self.assertEqual(self.begun, 1)

    async def test_repeated_call_after_a_crash_acts_once(self) -> None:
        self.release.callback("done")
        first = await self.run_op(request_id="r1")
        self.reopen()
        self.assertEqual(await self.run_op(request_id="r1"), first)
        self.assertEqual(self.begun, 1)

    async def test_repeated_failure_is_the_same_failure(self) -> None:
        self.release.errback(NotFound("no pet"))
        with self.assertRaises(NotFound) as first:
            await self.run_op(request_id="r1")
        with self.assertRaises(NotFound) as second:
            await self.run_op(request_id="r1")
        self.assertEqual(first.exception.data, second.exception.data)

    async def test_interrupted_call_is_found_again_and_finished_by_recovery(self) -> None:
        operation = await self.run_op(request_id="r1", wait=False)
        self.reopen()
        again = Deferred.fromCoroutine(self.run_op(request_id="r1"))
        (interrupted,) = await self.log.interrupted()
        self.assertEqual(interrupted.sid, operation.sid)
        await self.log.finish(operation.sid, result=Pet(name="rex"))
        self.assertEqual((await again).result, {"name": "rex", "legs": 4})
        self.assertEqual(await self.log.interrupted(), [])
        self.assertEqual(self.begun, 1)

    async def test_different_call_with_the_same_id_is_refused(self) -> None:
        self.release.callback(None)
        await self.run_op(request_id="r1")
        with self.assertRaises(RequestIdReused):
            await self.run_op(request_id="r1", params={"name": "tom"})

    async def test_ids_belong_to_a_context_and_a_user(self) -> None:
        self.release.callback(None)
        for one in (call("r1"), call("r1", "user:bob"), call("r1", context="dev")):
            await self.log.run(one, TRAIN, {}, self.work)
        self.assertEqual(self.begun, 3)

    async def test_stop_leaves_the_operation_to_recovery(self) -> None:
        operation = await self.run_op(wait=False)
        self.log.stop()
        self.reopen()
        (interrupted,) = await self.log.interrupted()
        self.assertEqual(interrupted.sid, operation.sid)

    async def test_stop_leaves_to_recovery_also_what_has_not_begun(self) -> None:
        beginning = Deferred.fromCoroutine(self.run_op(wait=False))
        self.log.stop()
        await self.assertFailure(beginning, Unavailable)
        self.assertEqual(self.begun, 0)
        (interrupted,) = await self.log.interrupted()
        self.assertEqual(interrupted.kind, "train")


class AnswerTests(DatabaseTestCase):
    """Mutating methods that are not operations."""

    def served(self, method: Any) -> ServedMethod:
        return ServedMethod(method, getattr(self.pets, method.name), self.log)

    async def add(self, name: str, request_id: str | None, user: str = "user:alice") -> Any:
        params = {"name": name}
        if request_id:
            params["request_id"] = request_id
        operator = Caller(user=user, claims=frozenset({Claim("operator")}))
        return await self.served(ADD)(Call(caller=operator), params)

    async def test_repeated_call_gets_the_first_answer(self) -> None:
        first = await self.add("tom", "r1")
        self.assertEqual(await self.add("tom", "r1"), first)
        self.assertEqual(self.pets.calls, ["add_pet tom"])

    async def test_also_after_a_crash(self) -> None:
        first = await self.add("tom", "r1")
        self.reopen()
        self.assertEqual(await self.add("tom", "r1"), first)
        self.assertEqual(self.pets.calls, [])

    async def test_without_an_id_each_call_acts(self) -> None:
        await self.add("tom", None)
        with self.assertRaises(Conflict):
            await self.add("tom", None)

    async def test_different_call_with_the_same_id_is_refused(self) -> None:
        await self.add("tom", "r1")
        with self.assertRaises(RequestIdReused):
            await self.add("jerry", "r1")

    async def test_failed_call_is_made_again(self) -> None:
        with self.assertRaises(Conflict):
            await self.add("rex", "r1")
        del self.pets.pets["rex"]
        self.assertEqual((await self.add("rex", "r1"))["name"], "rex")

    async def test_calls_at_the_same_time_act_once(self) -> None:
        answers = [Deferred.fromCoroutine(self.add("tom", "r1")) for _ in range(5)]
        self.assertEqual({(await answer)["name"] for answer in answers}, {"tom"})
        self.assertEqual(self.pets.calls, ["add_pet tom"])

    async def test_secret_is_not_kept(self) -> None:
        local = Call(caller=Caller.local_administrator())
        params = {"door": "front", "request_id": "r1"}
        self.assertEqual(await self.served(KEY)(local, params), "the-secret")
        with self.assertRaises(Conflict):
            await self.served(KEY)(local, params)
        self.assertEqual(self.pets.calls, ["make_key"])
        kept = (self.directory / "pets.db").read_bytes()
        self.assertNotIn(b"the-secret", kept)


class DigestTests(SynchronousTestCase):
    def test_order_does_not_matter(self) -> None:
        self.assertEqual(call_digest(TRAIN, {"a": 1, "b": 2}), call_digest(TRAIN, {"b": 2, "a": 1}))

    def test_method_and_values_do(self) -> None:
        digests = {
            call_digest(TRAIN, {"a": 1}),
            call_digest(TRAIN, {"a": "1"}),
            call_digest(ADD, {"a": 1}),
        }
        self.assertEqual(len(digests), 3)
