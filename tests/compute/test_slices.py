"""How a machine is cut into slices, and who gets which."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.compute.errors import SliceUnavailable
from hero.compute.model import Slice
from hero.compute.slices import (
    GIB,
    LEAST_SLICE_MEMORY,
    MIB,
    Division,
    allocate,
    divide,
    parse_size,
    resize,
)
from hero.errors import InvalidConfiguration, NotFound


def free(index: int, memory: int = GIB) -> Slice:
    return Slice(sid=f"slice-{index}", index=index, memory=memory, disk=GIB, state="free")


def used(index: int) -> Slice:
    return Slice(
        sid=f"slice-{index}", index=index, memory=GIB, disk=GIB, state="in_use", vm_sid="vm-1"
    )


class DivideTests(SynchronousTestCase):
    """`divide` follows the formula of the design."""

    def test_formula(self) -> None:
        """24 GiB less one make five slices of four."""
        division = divide(total_memory=24 * GIB, usable_disk=100 * GIB, slice_memory=4 * GIB)
        self.assertEqual(division, Division(count=5, memory=4 * GIB, disk=20 * GIB))

    def test_too_small_a_machine(self) -> None:
        """A machine without room for one slice has none."""
        self.assertEqual(
            divide(total_memory=4 * GIB, usable_disk=GIB, slice_memory=4 * GIB),
            Division(count=0, memory=4 * GIB, disk=0),
        )

    def test_slice_in_which_nothing_runs(self) -> None:
        """A slice that no guest fits in is refused; one of 64 MiB is not enough to boot."""
        for size in (MIB, 64 * MIB):
            self.assertRaises(
                InvalidConfiguration, divide, total_memory=GIB, usable_disk=GIB, slice_memory=size
            )

    @settings(deadline=None)
    @given(st.integers(0, 2**50), st.integers(0, 2**50), st.integers(LEAST_SLICE_MEMORY, 2**45))
    def test_never_more_than_there_is(self, memory: int, disk: int, slice_memory: int) -> None:
        """Slices together never exceed the machine."""
        division = divide(total_memory=memory, usable_disk=disk, slice_memory=slice_memory)
        self.assertTrue(division.count == 0 or division.count * slice_memory <= memory - GIB)
        self.assertLessEqual(division.count * division.disk, disk)

    def test_sizes(self) -> None:
        """Sizes can be written as people write them."""
        for text, size in {"1": 1, "4G": 4 * GIB, "512M": 512 * MIB, "2gib": 2 * GIB}.items():
            self.assertEqual(parse_size(text), size)
        for text in ("", "4X", "-1", "1.5G", "G"):
            self.assertRaises(ValueError, parse_size, text)


class ResizeTests(SynchronousTestCase):
    """`resize` fits slices to a machine that has changed."""

    def test_grows(self) -> None:
        """New slices get the lowest free indexes."""
        change = resize([used(1)], Division(count=3, memory=GIB, disk=GIB))
        self.assertEqual((change.add, change.remove, change.excess), ((0, 2), (), 0))

    def test_shrinks_without_touching_what_is_in_use(self) -> None:
        """Free slices go, the highest first; slices in use stay and are counted."""
        slices = [free(0), used(1), free(2), used(3)]
        change = resize(slices, Division(count=3, memory=GIB, disk=GIB))
        self.assertEqual(change.remove, ("slice-2",))
        change = resize(slices, Division(count=1, memory=GIB, disk=GIB))
        self.assertEqual((change.remove, change.excess), (("slice-0", "slice-2"), 1))

    def test_other_size(self) -> None:
        """Free slices take the new size."""
        change = resize([free(0), used(1)], Division(count=2, memory=2 * GIB, disk=GIB))
        self.assertEqual((change.update, change.add, change.remove), (("slice-0",), (), ()))


class AllocateTests(SynchronousTestCase):
    """`allocate` chooses slices."""

    def test_lowest_first(self) -> None:
        """The same table always gives the same choice."""
        chosen = allocate([free(2), used(0), free(1), free(3)], 2)
        self.assertEqual([s.index for s in chosen], [1, 2])

    def test_named(self) -> None:
        """The slice asked for is among those chosen."""
        chosen = allocate([free(0), free(1), free(2)], 2, "slice-2")
        self.assertEqual({s.index for s in chosen}, {0, 2})

    def test_full(self) -> None:
        """The refusal says how many there are, and what to do."""
        error = self.assertRaises(SliceUnavailable, allocate, [free(0), used(1)], 2)
        self.assertEqual(error.data, {"slices_free": 1, "slices": 2})
        self.assertIn("delete a VM", error.hint or "")

    def test_machine_without_slices(self) -> None:
        """There is nothing to delete, so the advice is another."""
        error = self.assertRaises(SliceUnavailable, allocate, [], 1)
        self.assertIn("HERO_SLICE_MEMORY", error.hint or "")

    def test_named_in_use_or_unknown(self) -> None:
        """These are different mistakes."""
        self.assertRaises(SliceUnavailable, allocate, [used(0)], 1, "slice-0")
        self.assertRaises(NotFound, allocate, [free(0)], 1, "slice-9")
