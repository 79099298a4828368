"""Our own generators, in C: their sources are in ``programs``, and say what they do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.router.processes import LOAD_CORE, pinned

_SOURCES = Path(__file__).parent / "programs"


class GeneratorFailed(Exception):
    """A generator could not do its work. The text is what it printed."""


def build(name: str, directory: Path) -> Path:
    """The program *name*, compiled into *directory* if it is not there yet."""
    program = directory / name
    if not program.exists():
        argv = ["gcc", "-O2", "-o", str(program), str(_SOURCES / f"{name}.c")]
        subprocess.run([*argv, "-lssl", "-lcrypto", "-lpthread"], check=True)
    return program


class Generator:
    """A generator that runs. It ends at the end of the ``with`` block."""

    def __init__(self, program: Path, *arguments: object) -> None:
        self._process = subprocess.Popen(
            pinned([str(program), *map(str, arguments)], str(LOAD_CORE)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ready(self) -> None:
        """Return once it has connected all that it is to connect."""
        self._expect("READY")

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """What it found, once it has."""
        found: dict[str, Any] = json.loads(self._expect("RESULT"))
        return found

    def _expect(self, word: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(word):
            raise GeneratorFailed(f"{self._process.args!r} printed {line!r} and not {word}")
        return line.removeprefix(word).strip()
