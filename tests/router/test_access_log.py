"""What is written of each request, and what becomes of it where it cannot be written."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from hero.router.access_log import AccessLog, Record
from hero.router.line_writer import LineWriter
from hero.router.log_file import LogFile, OpenFile

#: 2026-01-02 03:04:05.678 UTC
_NOW = 1767323045.678


class DirectoryCase(SynchronousTestCase):
    """Tests with a directory for logs, and an ear for what the router says."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-log-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.path = self.directory / "access.log"
        self.said: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.said.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.said.append)

    def complaints(self) -> list[str]:
        """What was said about the access log."""
        formats = [str(event.get("log_format")) for event in self.said]
        return [text for text in formats if "the access log" in text]

    def lines(self, path: Path | None = None) -> list[Any]:
        return [json.loads(line) for line in (path or self.path).read_text().split("\n")[:-1]]


class AccessLogTests(DirectoryCase):
    """From records to lines."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.now = _NOW

    def open(self, file: Any = None, **bounds: int) -> AccessLog:
        self.writer = LineWriter(file or LogFile(self.path), **bounds)
        return AccessLog(self.clock, self.writer, wall=lambda: self.now)

    def record(self, path: str = "/demo/web/", **more: Any) -> Record:
        return Record(7.0, "id-1", "10.0.0.1", "GET", path, **more)

    def test_line_has_every_member(self) -> None:
        log = self.open()
        record = self.record(
            route="/demo/web",
            user="user:alice",
            status=200,
            bytes_in=30,
            bytes_out=50,
            upstream_seconds=0.25,
        )
        log.write(record, 0.5)
        log.close()
        expected = {
            "request_id": "id-1",
            "peer": "10.0.0.1",
            "method": "GET",
            "path": "/demo/web/",
            "route": "/demo/web",
            "user": "user:alice",
            "status": 200,
            "reason": None,
            "tunnel": False,
            "bytes_in": 30,
            "bytes_out": 50,
            "protocol": "HTTP/1.1",
            "upstream_seconds": 0.25,
            "seconds": 0.5,
            "time": "2026-01-02T03:04:05.678Z",
        }
        self.assertEqual(self.lines(), [expected])

    def test_each_line_has_its_own_time(self) -> None:
        """Also where the time of day is set back."""
        log = self.open()
        for self.now in (_NOW, _NOW + 0.0009, _NOW + 0.0011, _NOW + 60, _NOW):
            log.write(self.record(), 0.0)
        log.close()
        times = [line["time"][17:] for line in self.lines()]
        self.assertEqual(times, ["05.678Z", "05.678Z", "05.679Z", "05.678Z", "05.678Z"])
        self.assertEqual(self.lines()[3]["time"], "2026-01-02T03:05:05.678Z")

    def test_no_path_breaks_a_line(self) -> None:
        """A refused request's path can hold whatever is visible, and more if a check is missed."""
        path = "".join(map(chr, range(256)))
        log = self.open()
        log.write(self.record(path), 0.0)
        log.write(self.record(), 0.0)
        log.close()
        self.assertEqual([line["path"] for line in self.lines()], [path, "/demo/web/"])
        self.assertEqual(self.path.read_bytes().count(b"\n"), 2)

    def test_lines_come_soon_and_together(self) -> None:
        written: list[bytes] = []
        arrived = threading.Event()

        class File(OpenFile):
            def write(self, lines: bytes) -> None:
                written.append(lines)
                arrived.set()

        log = self.open(File(os.open(os.devnull, os.O_WRONLY)))
        self.addCleanup(log.close)
        for _ in range(1000):
            log.write(self.record(), 0.0)
        self.clock.advance(0.19)
        self.assertEqual(written, [])
        self.clock.advance(0.02)
        self.assertTrue(arrived.wait(10))
        self.assertEqual([lines.count(b"\n") for lines in written], [1000])

    def test_clock_rests_when_all_is_written(self) -> None:
        log = self.open()
        log.write(self.record(), 0.0)
        self.clock.advance(0.2)
        log.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.lines()), 1)

    def test_only_the_owner_may_read(self) -> None:
        self.open().close()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_no_log_is_kept_without_a_writer(self) -> None:
        log = AccessLog(self.clock, None)
        log.write(self.record(), 0.0)
        log.reopen()
        log.close()
        self.assertEqual(log.lost, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full_disk_costs_lines_and_is_said_once(self) -> None:
        log = self.open(LogFile(Path("/dev/full")))
        for _ in range(3):
            log.write(self.record(), 0.0)
            while self.clock.getDelayedCalls():
                self.clock.advance(0.2)
        log.close()
        self.assertEqual(log.lost, 3)
        (event,) = [e for e in self.said if "the access log" in str(e.get("log_format"))]
        self.assertIn("No space left on device", event["reason"])

    def test_log_goes_on_when_there_is_room_again(self) -> None:
        """The directory is gone for a while: its lines are lost, and it is said that they were."""
        log = self.open()
        moved = self.directory.with_name(f"{self.directory.name}-moved")
        self.addCleanup(shutil.rmtree, moved, True)
        for path in ("/before", "/lost", "/after"):
            if path == "/lost":
                self.directory.rename(moved)
            elif path == "/after":
                self.directory.mkdir()
            log.write(self.record(path), 0.0)
            while self.clock.getDelayedCalls():
                self.clock.advance(0.2)
        log.close()
        self.assertEqual([line["path"] for line in self.lines(moved / "access.log")], ["/before"])
        self.assertEqual([line["path"] for line in self.lines()], ["/after"])
        self.assertEqual(log.lost, 1)
        self.assertEqual(len(self.complaints()), 2)

    def test_slow_disk_holds_a_bounded_number_of_lines(self) -> None:
        """The thread is stuck in a write; what comes meanwhile is held up to a bound."""
        go_on = threading.Event()

        class Stuck(LogFile):
            def write(self, lines: bytes) -> None:
                go_on.wait(10)
                super().write(lines)

        log = self.open(Stuck(self.path), bound=2000)
        for _ in range(100):
            log.write(self.record(), 0.0)
            self.clock.advance(0.2)
        lost = log.lost
        self.assertGreater(lost, 50)
        self.assertEqual(len(self.complaints()), 1)
        go_on.set()
        log.close()
        self.assertEqual(len(self.lines()) + lost, 100)

    def test_lines_after_the_end_are_lost_quietly(self) -> None:
        log = self.open()
        log.close()
        log.write(self.record(), 0.0)
        self.assertEqual(self.lines(), [])


class ReopenTests(DirectoryCase):
    """Rotation by others."""

    def test_reopened_file_takes_the_next_line(self) -> None:
        """Whatever was logged before goes into the file that was moved, or the new one."""
        clock = Clock()
        log = AccessLog(clock, LineWriter(LogFile(self.path)))
        log.write(Record(0.0, "1", "a"), 0.0)
        clock.advance(0.2)
        while clock.getDelayedCalls():
            clock.advance(0.2)
        moved = self.directory / "access.log.moved"
        self.path.rename(moved)
        log.write(Record(0.0, "2", "a"), 0.0)
        log.reopen()
        log.write(Record(0.0, "3", "a"), 0.0)
        log.close()
        ids = [line["request_id"] for path in (moved, self.path) for line in self.lines(path)]
        self.assertEqual(ids, ["1", "2", "3"])
        self.assertEqual(len(self.lines(moved)), 1)

    def test_new_file_is_there_before_anything_is_logged(self) -> None:
        log = AccessLog(Clock(), LineWriter(LogFile(self.path)))
        self.path.unlink()
        log.reopen()
        log.close()
        self.assertEqual(self.path.read_bytes(), b"")


class LogFileTests(DirectoryCase):
    """Files as they grow, go and are shared."""

    def file(self, **bounds: int) -> LogFile:
        file = LogFile(self.path, **bounds)
        self.addCleanup(lambda: file.close())
        return file

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.directory.iterdir())}

    def test_file_that_has_grown_is_rotated(self) -> None:
        """The oldest are dropped."""
        file = self.file(size=4, kept=2)
        for line in (b"one\n", b"two\n", b"three\n", b"four\n"):
            file.write(line)
        expected = {
            "access.log": b"four\n",
            "access.log.1": b"three\n",
            "access.log.2": b"two\n",
        }
        self.assertEqual(self.contents(), expected)

    def test_processes_share_a_file_and_its_rotation(self) -> None:
        first, second = self.file(size=8, kept=5), self.file(size=8, kept=5)
        for number in range(10):
            (second if number % 2 else first).write(b"%03d\n" % number)
        together = b"".join(reversed(list(self.contents().values())))
        self.assertEqual(together, b"".join(b"%03d\n" % n for n in range(10)))
        self.assertEqual(len(self.contents()), 5)

    def test_moved_file_is_not_written_to(self) -> None:
        file = self.file()
        file.write(b"one\n")
        self.path.rename(self.directory / "moved")
        file.write(b"two\n")
        self.assertEqual(self.contents(), {"access.log": b"two\n", "moved": b"one\n"})

    def test_removed_file_is_made_again(self) -> None:
        file = self.file()
        self.path.unlink()
        file.write(b"one\n")
        self.assertEqual(self.contents(), {"access.log": b"one\n"})

    def test_file_grows_where_it_cannot_be_rotated(self) -> None:
        """A directory stands where the old log should go."""
        (self.directory / "access.log.1" / "x").mkdir(parents=True)
        file = self.file(size=4, kept=1)
        file.write(b"one\n")
        file.write(b"two\n")
        self.assertEqual(self.path.read_bytes(), b"one\ntwo\n")

    def test_line_after_one_that_was_cut_begins_on_its_own(self) -> None:
        """A pipe whose reader is slow takes a part of what is written, then no more."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        file = OpenFile(writer)
        self.addCleanup(file.close)
        self.assertRaises(OSError, file.write, b"x" * 1024 * 1024 + b"\n")
        cut = os.read(reader, 1024 * 1024)
        file.write(b"two\n")
        self.assertEqual(cut.strip(b"x"), b"")
        self.assertEqual(os.read(reader, 100), b"\ntwo\n")

    def test_pipe_that_nobody_reads_is_refused_at_once(self) -> None:
        os.mkfifo(self.path)
        self.assertRaises(OSError, LogFile, self.path)


class DocumentationTests(SynchronousTestCase):
    """The page about the access log."""

    def test_every_member_is_explained(self) -> None:
        members = set(Record.__struct_fields__) - {"started"}
        page = (Path(__file__).parents[2] / "docs/reference/access-log.md").read_text()
        rows = re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE)
        self.assertEqual(set(re.findall(r"`(\w+)`", " ".join(rows))), members)
