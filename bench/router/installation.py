"""What the benchmark needs besides Hero: Debian packages, and a virtual environment of its own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

_TREE = Path(__file__).parents[2]
_ENVIRONMENT = _TREE / "bench" / ".venv"
_REQUIREMENTS = Path(__file__).parent / "peers" / "requirements.txt"
_SYSTEM_PACKAGES = str(_TREE / "packaging" / "system-packages")

#: Where the programs are that come from PyPI.
SCRIPTS = _ENVIRONMENT / "bin"


def install() -> None:
    """Install what is missing. Needs root for Debian's packages."""
    services = [name for name in ("nginx", "haproxy") if shutil.which(name) is None]
    subprocess.run([_SYSTEM_PACKAGES, "bench"], check=True)
    if services and shutil.which("systemctl"):
        # Debian starts what it installs; we want the programs alone.
        subprocess.run(["systemctl", "disable", "--quiet", "--now", *services], check=False)
    installed = _ENVIRONMENT / "installed.txt"
    wanted = _REQUIREMENTS.read_text()
    if installed.exists() and installed.read_text() == wanted:
        return
    if not (SCRIPTS / "python").exists():
        if importlib.util.find_spec("ensurepip") is None:
            subprocess.run([_SYSTEM_PACKAGES, "venv"], check=True)
        subprocess.run([sys.executable, "-m", "venv", str(_ENVIRONMENT)], check=True)
    print("Installing proxies from PyPI into", _ENVIRONMENT, flush=True)
    pip = [str(SCRIPTS / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-r", str(_REQUIREMENTS)], check=True)
    installed.write_text(wanted)
