"""What was read twice is not read a third time."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hero.router.memo import memoised


class MemoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.read: list[bytes] = []

        def read(block: bytes) -> tuple[bytes, int]:
            self.read.append(block)
            if block == b"bad":
                raise ValueError(block)
            return block, len(self.read)

        self.recall = memoised(read, entries=2, longest=4)

    def test_third_time_is_recalled(self) -> None:
        results = [self.recall(b"a") for _ in range(4)]
        self.assertEqual(self.read, [b"a", b"a"])
        self.assertEqual(results[1:], [(b"a", 2)] * 3)

    def test_long_ones_are_read_each_time(self) -> None:
        for _ in range(4):
            self.recall(b"longer")
        self.assertEqual(len(self.read), 4)

    def test_exceptions_are_not_kept(self) -> None:
        for _ in range(3):
            self.assertRaises(ValueError, self.recall, b"bad")
        self.assertEqual(len(self.read), 3)

    def test_memory_is_bounded(self) -> None:
        for block in (b"a", b"b", b"c") * 3:
            self.assertEqual(self.recall(block)[0], block)
        for _ in range(3):
            self.recall(b"d")
        self.assertEqual(self.recall(b"a")[0], b"a")
        self.assertGreaterEqual(self.read.count(b"a"), 3)
