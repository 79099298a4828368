"""The compute service is killed at every step of what it does to a VM, and started again.

After that the world is true: no half VM, no slice or file that belongs to nobody, no operation
that never ends; and who repeats a call by its request id gets what was asked for, once.
"""

from __future__ import annotations

from typing import Any

import psutil
from twisted.trial.unittest import TestCase

from tests.functional.cluster import give_images
from tests.functional.compute_process import ComputeProcess, RpcFailure, wait_until

DEPLOY_STEPS = (
    "deploy.record",
    "deploy.provisioning",
    "deploy.disk",
    "deploy.made",
    "start.guest",
    "start.seen",
)
DELETE_STEPS = ("delete.record", "delete.guest", "delete.slices", "delete.done")
DEPLOY = {"name": "web", "request_id": "deploy-web"}


class CrashTestCase(TestCase):
    """A compute service that can be killed, and what has to be true afterwards."""

    timeout = 600
    options: tuple[str, ...]

    def setUp(self) -> None:
        self.compute = ComputeProcess(*self.options)
        self.addCleanup(self.compute.remove)

    def interrupt(self, step: str, method: str, **params: Any) -> None:
        """Make a call that kills the service at *step*."""
        self.assertRaises(OSError, self.compute.call, method, **params)
        self.compute.wait_for_death()

    def settle(self) -> None:
        """Wait until every operation has ended."""

        def ended() -> bool:
            page = self.compute.call("list_operations", state="running")
            return not page["items"]

        wait_until(ended, "the operations to end")

    def check_world(self) -> list[dict[str, Any]]:
        """The VMs; records, slices, files and operations agree."""
        self.settle()
        vms: list[dict[str, Any]] = self.compute.call("list_vms")["items"]
        for vm in vms:
            self.assertIn(vm["state"], ("stopped", "running", "paused"), vm)
        held = {
            item["sid"]: item["vm_sid"]
            for item in self.compute.call("list_slices")["items"]
            if item["state"] == "in_use"
        }
        self.assertEqual(held, {sid: vm["sid"] for vm in vms for sid in vm["slices"]})
        self.assertEqual(self.compute.directories(), sorted(vm["sid"] for vm in vms))
        return vms

    def check_deploy(self, *crashes: str) -> None:
        """Deploy, crash at each of *crashes* in turn, and start again in the end."""
        self.compute.start(crashes[0])
        self.interrupt(crashes[0], "deploy_vm", **DEPLOY)
        for step in crashes[1:]:
            self.compute.start(step)
            self.compute.wait_for_death()
        self.compute.start()
        before = self.check_world()
        operation = self.compute.call("list_operations")["items"][0]
        self.assertEqual(operation["state"], "succeeded" if before else "failed")
        if before:
            self.assertEqual(operation["result"]["sid"], before[0]["sid"])
        else:
            self.assertEqual(operation["error"]["kind"], "operation_interrupted")
        again = self.compute.call("deploy_vm", **DEPLOY)
        (vm,) = self.check_world()
        self.assertEqual(again["result"]["sid"], vm["sid"])
        self.assertEqual((vm["state"], vm["wanted_state"]), ("running", "running"))

    def check_delete(self, *crashes: str) -> None:
        """Deploy, delete, crash at each of *crashes* in turn, and start again in the end."""
        self.compute.start()
        self.compute.call("deploy_vm", **DEPLOY)
        self.compute.stop()
        self.compute.start(crashes[0])
        delete = {"vm": "web", "force": True, "request_id": "delete-web"}
        self.interrupt(crashes[0], "delete_vm", **delete)
        for step in crashes[1:]:
            self.compute.start(step)
            self.compute.wait_for_death()
        self.compute.start()
        before = self.check_world()
        operation = self.compute.call("list_operations")["items"][0]
        self.assertEqual(operation["state"], "failed" if before else "succeeded")
        self.assertEqual([vm["state"] for vm in before], ["running"] * len(before))
        again = self.compute.call("delete_vm", **delete)
        self.assertEqual(again["state"], "succeeded")
        self.assertEqual(self.check_world(), [])
        self.assertRaises(RpcFailure, self.compute.call, "get_vm", vm="web")
        self.compute.call("deploy_vm", name="web")


class CrashTests(CrashTestCase):
    """With guests that exist in memory only."""

    options = ("--hypervisor", "memory", "--slice-memory", "1G")

    def test_crash_while_recovering_from_a_deploy(self) -> None:
        """Recovery can itself be interrupted."""
        self.check_deploy("deploy.disk", "deploy.disk", "start.guest")

    def test_crash_while_recovering_from_a_delete(self) -> None:
        """Recovery can itself be interrupted."""
        self.check_delete("delete.guest", "delete.slices")

    def test_crash_while_stopping(self) -> None:
        """The owner's wish is carried out after the restart."""
        self.compute.start("stop.guest")
        self.compute.call("deploy_vm", **DEPLOY)
        self.interrupt("stop.guest", "stop_vm", vm="web", request_id="stop-web")
        self.compute.start()
        (vm,) = self.check_world()
        self.assertEqual((vm["state"], vm["wanted_state"]), ("stopped", "stopped"))
        self.assertEqual(self.compute.call("list_operations")["items"][0]["state"], "succeeded")

    def test_crash_between_stop_and_start_of_a_restart(self) -> None:
        """A VM that was to be restarted is not left stopped."""
        self.compute.start("stop.seen")
        self.compute.call("deploy_vm", **DEPLOY)
        self.interrupt("stop.seen", "restart_vm", vm="web")
        self.compute.start()
        (vm,) = self.check_world()
        self.assertEqual((vm["state"], vm["reason"]), ("running", None))
        self.assertEqual(self.compute.call("list_operations")["items"][0]["state"], "succeeded")

    def test_crash_while_pausing(self) -> None:
        """The owner's wish is carried out after the restart."""
        self.compute.start("pause.guest")
        self.compute.call("deploy_vm", **DEPLOY)
        self.interrupt("pause.guest", "pause_vm", vm="web")
        self.compute.start()
        (vm,) = self.check_world()
        self.assertEqual((vm["state"], vm["wanted_state"]), ("paused", "paused"))

    def test_second_service_on_the_same_state(self) -> None:
        """Only one process can have a node's VMs."""
        self.compute.start()
        second = ComputeProcess("--hypervisor", "memory")
        self.addCleanup(second.remove)
        second.home, first_home = self.compute.home, second.home
        with self.assertRaises(AssertionError) as raised:
            second.start()
            second.wait_for_death()
        second.home = first_home
        self.assertIn("another compute service uses", str(raised.exception))
        self.compute.call("deploy_vm", **DEPLOY)

    def test_database_that_is_none(self) -> None:
        """The service says so in a line, and goes."""
        state = self.compute.home / "var/state"
        state.mkdir(parents=True)
        (state / "compute.db").write_bytes(b"something else" * 1000)
        with self.assertRaises(AssertionError) as raised:
            self.compute.start()
        said = str(raised.exception)
        self.assertIn("hero-compute: the database", said)
        self.assertIn("file is not a database", said)
        self.assertNotIn("Traceback", said)


class QemuCrashTests(CrashTestCase):
    """With real guests, which go on while the service is away."""

    options = ("--slice-memory", "256M")

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.kill_guests)
        give_images(self.compute.home)

    def guests(self) -> list[psutil.Process]:
        """The QEMU processes of this node."""
        return [process for process in psutil.process_iter() if self.is_guest(process)]

    def is_guest(self, process: psutil.Process) -> bool:
        try:
            ours = process.cwd().startswith(str(self.compute.home))
            return ours and process.name().startswith("qemu-system")
        except psutil.Error:
            return False

    def kill_guests(self) -> None:
        for process in self.guests():
            process.kill()

    def test_guest_survives_the_service(self) -> None:
        """The guest of before is the guest of after; one that dies meanwhile is seen to have."""
        self.compute.start()
        sids = {name: self.compute.call("deploy_vm", name=name)["target"] for name in ("web", "db")}
        before = {process.pid for process in self.guests()}
        self.compute.kill()
        self.compute.start()
        self.assertEqual([vm["state"] for vm in self.check_world()], ["running"] * 2)
        self.assertEqual({process.pid for process in self.guests()}, before)
        self.compute.kill()
        victim = next(p for p in self.guests() if p.cwd().endswith(sids["web"]))
        victim.kill()
        self.compute.start()
        db, web = self.check_world()
        self.assertEqual((db["state"], web["state"]), ("running", "stopped"))
        self.assertIsNotNone(web["reason"])
        self.compute.call("start_vm", vm="web")
        self.assertEqual(len(self.guests()), 2)

    def test_deploy_and_delete_that_crash(self) -> None:
        """There is one guest where there is one VM, and none where there is none."""
        self.check_deploy("start.seen")
        self.assertEqual(len(self.guests()), 1)
        self.compute.stop()
        self.compute.start("delete.guest")
        self.interrupt("delete.guest", "delete_vm", vm="web", force=True)
        self.assertEqual(len(self.guests()), 1)
        self.compute.start()
        self.assertEqual(self.check_world(), [])
        self.assertEqual(self.guests(), [])


def _add_step_tests() -> None:
    for step in DEPLOY_STEPS:

        def test_deploy(self: CrashTests, step: str = step) -> None:
            self.check_deploy(step)

        test_deploy.__doc__ = f"A deploy that is interrupted at {step} is finished or undone."
        setattr(CrashTests, f"test_deploy_crashes_at_{step.replace('.', '_')}", test_deploy)
    for step in DELETE_STEPS:

        def test_delete(self: CrashTests, step: str = step) -> None:
            self.check_delete(step)

        test_delete.__doc__ = f"A delete that is interrupted at {step} is finished or never was."
        setattr(CrashTests, f"test_delete_crashes_at_{step.replace('.', '_')}", test_delete)


_add_step_tests()
