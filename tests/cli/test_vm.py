"""``hero vm``, ``hero image`` and ``hero operation`` against made-up services."""

from __future__ import annotations

import json
from typing import Any

from hero.cli import waiting
from tests.cli.cluster import CliTestCase, make_vm


class CreateTests(CliTestCase):
    """``hero vm create``."""

    def setUp(self) -> None:
        super().setUp()
        self.serve_explorer()

    async def test_waits_and_shows_the_vm(self) -> None:
        """The VM is there when the command ends."""
        result = await self.hero("vm", "create", "db", "--label", "a=b", "--vcpus", "2")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("db", result.stdout)
        self.assertIn("a=b", result.stdout)
        name, wanted, call = self.compute.calls[0]
        self.assertEqual((name, wanted["labels"], wanted["vcpus"]), ("deploy_vm", {"a": "b"}, 2))
        self.assertIsNotNone(call.request_id)

    async def test_json_is_the_vm(self) -> None:
        """With --json the VM is printed as it stands on the wire."""
        made = await self.hero_json("vm", "create", "db")
        self.assertEqual(made["name"], "db")
        self.assertEqual(made["state"], "running")

    async def test_no_wait_prints_the_operation(self) -> None:
        """With --no-wait the operation is printed at once."""
        self.compute.operations.stuck = True
        operation = await self.hero_json("vm", "create", "db", "--no-wait")
        self.assertEqual((operation["kind"], operation["state"]), ("deploy_vm", "running"))

    async def test_takes_longer_than_allowed(self) -> None:
        """The exit code is 7 when the operation goes on, and the hint says how to find it."""
        self.compute.operations.stuck = True
        self.patch(waiting, "_POLL", 0.01)
        result = await self.hero("vm", "create", "db", "--timeout", "0.05")
        self.assert_fails(result, 7, "still running", "hero operation show --wait op-")

    async def test_name_taken(self) -> None:
        """The failure of the operation is that of the command."""
        result = await self.hero("vm", "create", "web")
        self.assert_fails(result, 6, "a VM named web exists", "Hint: choose another name")

    async def test_error_as_json(self) -> None:
        """With --json the error is a JSON object on stderr, and stdout is empty."""
        result = await self.hero("--json", "vm", "create", "web")
        self.assertEqual((result.exit_code, result.stdout), (6, ""))
        told = json.loads(result.stderr)
        self.assertEqual(told["error"]["kind"], "name_taken")
        self.assertTrue(told["error"]["operation"].startswith("op-"))
        self.assertEqual(told["exit_code"], 6)

    async def test_value_that_the_service_refuses(self) -> None:
        """A value of the wrong form is wrong usage, and the parameter is named."""
        self.assert_fails(await self.hero("vm", "create", "Not A Name"), 2, "name")

    async def test_label_without_value(self) -> None:
        """A label has an equals sign."""
        self.assert_fails(await self.hero("vm", "create", "db", "--label", "x"), 2, "name=value")


class SteerTests(CliTestCase):
    """Commands that act on a VM or look at it."""

    def setUp(self) -> None:
        super().setUp()
        self.serve_compute()

    async def test_stop(self) -> None:
        """Options reach the service, and a sentence says what came of it."""
        result = await self.hero("vm", "stop", "web", "--grace", "3")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("is stopped.", result.stdout)
        self.assertEqual(self.compute.calls[0][1], {"vm": "web", "grace": 3.0, "force": False})

    async def test_unknown_vm(self) -> None:
        """The exit code of what is not there is 3."""
        self.assert_fails(await self.hero("vm", "show", "nope"), 3, "there is no VM 'nope'")
        self.assert_fails(await self.hero("vm", "stop", "nope"), 3, "there is no VM 'nope'")

    async def test_list(self) -> None:
        """Without a terminal the table has no colours and is cut nowhere."""
        result = await self.hero("vm", "list")
        self.assertEqual(result.exit_code, 0, result.output)
        heading, row = result.stdout.splitlines()
        self.assertTrue(heading.startswith("NAME"))
        self.assertIn("tier=front", row)
        self.assertNotIn("\x1b", result.stdout)

    async def test_list_reads_every_page(self) -> None:
        """A list is whole, however many pages it takes, and bounded by --limit."""
        for number in range(700):
            self.compute.vms[f"n{number:04}"] = make_vm(f"n{number:04}")
        self.assertEqual(len((await self.hero_json("vm", "list"))["items"]), 701)
        some = await self.hero_json("vm", "list", "--limit", "510")
        self.assertEqual(len(some["items"]), 510)

    async def test_list_filters(self) -> None:
        """Filters are the service's business."""
        await self.hero("vm", "list", "--state", "paused", "--label", "a=b", "--node", "n")
        self.assertEqual(
            self.compute.calls[0][1], {"state": "paused", "labels": {"a": "b"}, "node": "n"}
        )

    async def test_list_names_nodes_that_do_not_answer(self) -> None:
        """What may be old is said to be, beside the answer."""
        self.compute.unreachable = ["beta"]
        result = await self.hero("vm", "list")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("beta did not answer lately", result.stderr)

    async def test_empty_list(self) -> None:
        """Where there is nothing, the person is told what to do, and a program gets nothing."""
        self.compute.vms.clear()
        result = await self.hero("vm", "list")
        self.assertEqual((result.exit_code, result.stdout), (0, ""))
        self.assertIn("hero vm create", result.stderr)

    async def test_logs(self) -> None:
        """Logs are printed as they are."""
        result = await self.hero("vm", "logs", "web", "--limit", "4")
        self.assertEqual((result.exit_code, result.stdout), (0, "two\n"))

    async def test_logs_are_followed(self) -> None:
        """With -f each piece starts where the last one ended."""
        result = await self.hero("vm", "logs", "web", "-f", "--limit", "4", "--offset", "0")
        self.assertEqual(result.stdout, "one\ntwo\n")
        self.assert_fails(result, 3, "web is gone")

    async def test_stats(self) -> None:
        """Numbers are for people, unless a program asks."""
        result = await self.hero("vm", "stats", "web")
        self.assertIn("1.0 MiB of 1.0 GiB", result.stdout)
        self.assertIn("1m 15s", result.stdout)
        self.assertEqual((await self.hero_json("vm", "stats", "web"))["memory"], 1024**3)

    async def test_context(self) -> None:
        """--context is the context of the call."""
        await self.hero("vm", "list", "--context", "lab")
        self.assertEqual(self.compute.calls[0][2].context, "lab")

    async def test_image(self) -> None:
        """Images are listed and built."""
        self.assertIn("micro", (await self.hero("image", "list")).stdout)
        self.assertEqual((await self.hero_json("image", "build"))["state"], "ready")

    async def test_operation(self) -> None:
        """An operation can be looked at again."""
        operation = await self.hero_json("vm", "stop", "web", "--no-wait")
        sid: Any = operation["sid"]
        self.assertEqual((await self.hero_json("operation", "show", sid))["state"], "succeeded")
        self.assertIn(sid, (await self.hero("operation", "list")).stdout)
        missing = await self.hero("operation", "show", "op-zzzzzzzzzz")
        self.assert_fails(missing, 3, "there is no operation")
