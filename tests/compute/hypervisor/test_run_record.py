"""What is remembered of a guest's run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from hero.compute.guest import GuestState, StopReason
from hero.compute.hypervisor.run_record import (
    RunRecord,
    has_record,
    read_record,
    this_boot,
    write_record,
)


class RunRecordTests(TestCase):
    """`RunRecord` on disk."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def test_round_trip(self) -> None:
        """What was written is read."""
        record = RunRecord(
            sid=self.directory.name,
            uuid="u",
            boot_id=this_boot(),
            pid=12,
            start_ticks=34,
            started=5.5,
            reason=None,
            over=False,
        )
        self.assertFalse(has_record(self.directory))
        write_record(self.directory, record)
        self.assertTrue(has_record(self.directory))
        self.assertEqual(read_record(self.directory), record)

    def test_spoilt(self) -> None:
        """A record that a power failure left empty or torn is a run which that has ended."""
        for remains in (b"", b'{"sid": "vm', b"[]", b'{"reason": "because"}'):
            (self.directory / "guest.json").write_bytes(remains)
            record = read_record(self.directory)
            self.assertEqual((record.over, record.reason), (True, StopReason.HOST_REBOOT))
            self.assertEqual(record.sid, self.directory.name)

    def test_observation(self) -> None:
        """A reason that is only expected yet is not told."""
        record = RunRecord(sid="vm-1", pid=1, reason=StopReason.STOPPED, over=False)
        seen = record.observation(GuestState.PAUSED)
        self.assertEqual((seen.state, seen.reason, seen.pid), (GuestState.PAUSED, None, 1))
