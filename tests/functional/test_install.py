"""``install.sh``, in a copy of this machine whose changes are thrown away."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

SOURCE = Path(__file__).parents[2]

#: Lays an empty file system over this machine's own and goes there; all of it ends with the
#: process. $1 is the checkout, $2 what to do there, $3 an empty directory.
ENTER = """
layer=$3; mount -t tmpfs tmpfs "$layer" && mkdir "$layer"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
mount -t tmpfs tmpfs "$layer/root/tmp"
mount -t tmpfs tmpfs "$layer/root/run"
mount -t proc proc "$layer/root/proc"
mount --rbind /dev "$layer/root/dev"
mkdir "$layer/root/run/checkout" && mount --bind "$1" "$layer/root/run/checkout"
exec chroot "$layer/root" bash -euc "$2"
"""

#: The first installation runs on the network, what it installed runs without.
LIFE = """
cd /run/checkout
echo "## first"; ./install.sh
echo "## again"
echo HERO_NODE_NAME=kept >> /var/lib/hero/cfg/hero.env
./install.sh
echo "## files"
stat -c '%U %a %n' /opt/hero/bin/hero /var/lib/hero /var/lib/hero/cfg/hero.env
cat /var/lib/hero/cfg/hero.env
ls /etc/systemd/system
mkdir -m 700 /run/hero && chown hero: /run/hero
cat > /tmp/use <<'TXT'
set -eu
cd /
ip link set lo up
hero up -d --hypervisor memory
hero route list
stat -c 'hero up is of %U' "/proc/$(cat /var/lib/hero/var/run/hero.pid)"
hero vm create guest
hero vm list
if runuser -u nobody -- env HOME=/tmp hero vm list; then exit 1; fi
hero down
TXT
echo "## use"; unshare --net bash /tmp/use 2>&1
echo "## uninstall"; ./install.sh --uninstall
ls -d /opt/hero /usr/local/bin/hero /etc/systemd/system/hero* 2>/dev/null || true
ls -d /var/lib/hero
echo "## purge"; ./install.sh --uninstall --purge
ls -d /var/lib/hero 2>/dev/null || true
getent passwd hero || true
"""


class InstallTests(SynchronousTestCase):
    """What an administrator does with ``install.sh``."""

    def in_a_copy(self, script: str) -> subprocess.CompletedProcess[str]:
        """What *script* does on a machine like this one."""
        layer = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, layer)
        enter = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-euc", ENTER)
        return subprocess.run(
            [*enter, "bash", SOURCE, script, layer],
            env={k: v for k, v in os.environ.items() if not k.startswith("HERO_")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def test_installs_updates_runs_and_uninstalls(self) -> None:
        """Twice is as good as once, what is installed works, and it goes without a trace."""
        done = self.in_a_copy(LIFE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        parts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", done.stdout, re.DOTALL | re.M))
        for run in ("first", "again"):
            self.assertIn("systemctl enable --now hero.target", parts[run])
        self.assertIn("root 755 /opt/hero/bin/hero", parts["files"])
        self.assertIn("hero 700 /var/lib/hero\n", parts["files"])
        self.assertIn("hero 600 /var/lib/hero/cfg/hero.env", parts["files"])
        self.assertIn("HERO_SOCKET_DIR=/run/hero", parts["files"])
        self.assertIn("HERO_NODE_NAME=kept", parts["files"])
        for unit in ("hero.target", "hero-router", "hero-compute", "hero-explorer", "hero-ui"):
            self.assertIn(unit, parts["files"])
        self.assertIn("/hero_compute/explorer_rpc  up", parts["use"])
        self.assertIn("hero up is of hero\n", parts["use"])
        self.assertRegex(parts["use"], r"(?m)^guest +running +micro .* kept ")
        self.assertIn("no Hero service is running here", parts["use"])
        self.assertIn("/var/lib/hero is left", parts["uninstall"])
        for gone in ("/opt/hero", "/usr/local/bin", "/etc/systemd"):
            self.assertNotIn(gone, parts["uninstall"])
        self.assertTrue(parts["uninstall"].endswith("/var/lib/hero\n"))
        self.assertTrue(parts["purge"].endswith("are gone.\n"), parts["purge"])

    def test_wrong_use_changes_nothing(self) -> None:
        """Options that do not exist, or do not go together, are named."""
        for options in ("--bad", "--purge"):
            done = self.in_a_copy(f"cd /run/checkout; ./install.sh {options}")
            self.assertEqual(done.returncode, 2)
            self.assertIn(options, done.stderr)

    def test_needs_root(self) -> None:
        """Anybody else is told the command to use."""
        done = self.in_a_copy("cd /run/checkout; runuser -u nobody -- ./install.sh")
        self.assertEqual(done.returncode, 1)
        self.assertIn("this needs root: sudo", done.stderr)
