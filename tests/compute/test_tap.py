"""The options of ``twistd hero-compute``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.internet.testing import MemoryReactorClock
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from hero.compute.tap import Options, make_runtime
from hero.errors import InvalidConfiguration
from hero.identity.errors import NoIdentity


class OptionsTests(SynchronousTestCase):
    """Options and the environment."""

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hero-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.home)

    def options(self, *arguments: str, **environment: str) -> Options:
        options = Options({"HERO_HOME": str(self.home), **environment})
        options.parseOptions(arguments)
        return options

    def test_environment(self) -> None:
        """Each option has its variable; the command line goes before it."""
        options = self.options(HERO_HYPERVISOR="memory", EXPLORER_ADDRESSES="https://m:9998")
        self.assertEqual(options["hypervisor"], "memory")
        self.assertEqual(options["explorer-addresses"], "https://m:9998")
        options = self.options("--hypervisor", "qemu", HERO_HYPERVISOR="memory")
        self.assertEqual(options["hypervisor"], "qemu")

    def test_values_that_make_no_sense(self) -> None:
        """They are refused at once, by the option's name."""
        for arguments in (
            ("--hypervisor", "xen"),
            ("--mode", "boss"),
            ("--slice-memory", "lots"),
        ):
            error = self.assertRaises(usage.UsageError, self.options, *arguments)
            self.assertIn(arguments[0], str(error))

    def test_worker_that_has_not_joined(self) -> None:
        """It is told how to."""
        options = self.options("--mode", "worker", "--hypervisor", "memory")
        error = self.assertRaises(NoIdentity, make_runtime, MemoryReactorClock(), options)
        self.assertIn("hero join", error.hint or "")

    def test_slices_that_are_too_small(self) -> None:
        """Nothing starts with a configuration that cannot work."""
        options = self.options("--slice-memory", "1M", "--hypervisor", "memory")
        self.assertRaises(InvalidConfiguration, make_runtime, MemoryReactorClock(), options)
