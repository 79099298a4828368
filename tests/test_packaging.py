"""What is shipped: the processes' plugins and the files they need, from wherever one stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import hero

SOURCE = Path(hero.__file__).parent.parent
PROCESSES = ("hero-router", "hero-compute", "hero-explorer", "hero-ui")
TWISTD = "from twisted.scripts.twistd import run; run()"
BUILD = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
#: What builds are made from.
PROJECT = ("hero", "twisted", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def output(python: Path, *arguments: str, cwd: Path) -> str:
    """What ``python *arguments`` prints, run in *cwd* with nothing of ours in its environment."""
    done = subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HERO_HOME": str(cwd / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode != 0:
        raise AssertionError(f"{arguments} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


class PackagingTestCase(SynchronousTestCase):
    """Work in a directory that has nothing to do with the checkout."""

    def setUp(self) -> None:
        self.elsewhere = Path(tempfile.mkdtemp(dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.elsewhere)

    def assert_processes_offered(self, python: Path) -> None:
        """`twistd` lists our processes and each explains itself."""
        offered = output(python, "-c", TWISTD, "--help", cwd=self.elsewhere)
        for name in PROCESSES:
            self.assertIn(f" {name} ", offered)
            usage = output(python, "-c", TWISTD, name, "--help", cwd=self.elsewhere)
            self.assertIn("--", usage)


class InstalledTests(PackagingTestCase):
    """The installation that runs the tests."""

    def test_twistd_offers_our_processes(self) -> None:
        """Also when it is editable, and from another directory."""
        self.assert_processes_offered(Path(sys.executable))


class WheelTests(PackagingTestCase):
    """A wheel, installed where the checkout is out of sight."""

    def setUp(self) -> None:
        super().setUp()
        checkout = self.elsewhere / "checkout"
        checkout.mkdir()
        for name in PROJECT:
            if (SOURCE / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(SOURCE / name, checkout / name, ignore=ignored)
            else:
                shutil.copy(SOURCE / name, checkout / name)
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", *BUILD, self.elsewhere, checkout],
            check=True,
            capture_output=True,
            timeout=120,
        )
        shutil.rmtree(checkout)
        [self.wheel] = self.elsewhere.glob("hero-*.whl")

    def test_twistd_offers_our_processes(self) -> None:
        """The plugins are in the wheel and are found."""
        venv.create(self.elsewhere / "venv", with_pip=False, symlinks=True)
        python = self.elsewhere / "venv/bin/python"
        purelib = Path(
            output(
                python,
                "-c",
                "import sysconfig; print(sysconfig.get_path('purelib'))",
                cwd=self.elsewhere,
            ).strip()
        )
        # What Hero depends on comes from the installation that runs the tests, Hero does not: a
        # directory that a .pth file names has its own .pth files ignored.
        (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        with zipfile.ZipFile(self.wheel) as archive:
            archive.extractall(purelib)
        where = output(python, "-c", "import hero; print(hero.__file__)", cwd=self.elsewhere)
        self.assertTrue(where.startswith(str(purelib)), where)
        self.assert_processes_offered(python)

    def test_every_file_is_shipped_and_nothing_of_twisteds_is_shadowed(self) -> None:
        """Pages, scripts, migrations and types are there; Twisted's namespace stays its own."""
        with zipfile.ZipFile(self.wheel) as archive:
            shipped = set(archive.namelist())
        expected = {
            str(path.relative_to(SOURCE))
            for path in (SOURCE / "hero").rglob("*")
            if path.is_file() and not re.search(r"__pycache__|/\.", str(path))
        }
        self.assertEqual(expected - shipped, set())
        self.assertEqual(
            {name for name in shipped if name.startswith("twisted/")},
            {f"twisted/plugins/{name.replace('-', '_')}_plugin.py" for name in PROCESSES},
        )


class UnitTests(SynchronousTestCase):
    """What install.sh installs for systemd."""

    def test_every_process_has_a_unit_that_runs_it(self) -> None:
        """The same commands as everywhere, and only the router may bind 443."""
        script = (SOURCE / "install.sh").read_text()
        for name in PROCESSES:
            unit = (SOURCE / f"packaging/systemd/{name}.service").read_text()
            self.assertIn(f"ExecStart=/opt/hero/bin/twistd -n --pidfile= {name}\n", unit)
            self.assertEqual("AmbientCapabilities" in unit, name == "hero-router")
            self.assertIn("User=hero\n", unit)
            self.assertIn("PartOf=hero.target\n", unit)
            self.assertIn(name, script)

    def test_guests_outlive_the_unit_that_started_them(self) -> None:
        """systemd stops compute itself and nothing else of its group."""
        unit = (SOURCE / "packaging/systemd/hero-compute.service").read_text()
        self.assertIn("KillMode=process\n", unit)
