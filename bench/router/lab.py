"""Where a run lives: a directory with certificates, sockets and files, and the one backend."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import attrs

from bench.router.generators.native import build
from bench.router.processes import LOAD_CORE, NotStarted, Session
from hero.explorer.model import TokenRecord
from hero.identity.node import ensure_master_identity
from hero.identity.tokens import TokenFile, hash_secret, new_token
from hero.paths import HeroPaths

#: Where the backend's sockets are in the socket directory, hence the prefix that all proxies serve.
OPEN = "bench/open"
#: The same backend without a manifest: the router lets nobody in without an identity.
CLOSED = "bench/closed"
#: Answers of WebSocket echo and reads uploads, through a program of ours.
TALK = "bench/talk"

#: 187 bytes of JSON.
SMALL = (
    '{"jsonrpc":"2.0","id":1,"result":{"node":"n-0123456789abcdef01","slices":14,"free":9,'
    '"load":0.42,"vms":[{"sid":"vm-1","state":"running"},{"sid":"vm-2","state":"stopped"},'
    '{"sid":"vm-3"}]}}'
)
LARGE_FILE = "1gb"
MEDIUM_FILE = "100mb"

_MANIFEST = '{"name":"bench","version":"1","protocol":"http","access":"public"}'

_BACKEND = """
user root;
daemon off;
worker_processes 1;
pid {work}/backend.pid;
error_log {work}/backend-error.log;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  default_type application/octet-stream;
  keepalive_requests 1000000000;
  keepalive_timeout 600;
  sendfile on;
  client_body_temp_path {work}/backend-body;
  proxy_temp_path {work}/backend-proxy;
  fastcgi_temp_path {work}/backend-fastcgi;
  uwsgi_temp_path {work}/backend-uwsgi;
  scgi_temp_path {work}/backend-scgi;
  server {{
    listen unix:{open};
    location = /.well-known/heroservice.json {{
      default_type application/json;
      return 200 '{manifest}';
    }}
    location = /small.json {{ default_type application/json; return 200 '{small}'; }}
    location / {{ root {work}/files; }}
  }}
  server {{
    listen unix:{closed};
    location = /small.json {{ default_type application/json; return 200 '{small}'; }}
    location / {{ return 404; }}
  }}
}}
"""


@attrs.frozen(kw_only=True)
class HeroSource:
    """The Hero under test: its source tree, and the interpreter that runs it."""

    tree: Path
    python: Path


class Lab:
    """Everything that the proxies of a run share. Use it as a context manager."""

    def __init__(self, hero: HeroSource) -> None:
        self.hero = hero
        self.work = Path(tempfile.mkdtemp(prefix="hero-bench-"))
        self.paths = HeroPaths(home=self.work / "hero", sockets=self.work / "sockets")
        self.token = ""
        self._sessions: list[Session] = []

    def __enter__(self) -> Lab:
        self.paths.ensure()
        ensure_master_identity(self.paths, [])
        self.token = self._make_token()
        self._make_files()
        try:
            self._start_backend()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End what runs, and remove the directory."""
        for session in self._sessions:
            session.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    @property
    def certificate(self) -> Path:
        """The certificate that every proxy presents (P-256), with its authority's."""
        return self.paths.tls / "node.crt"

    @property
    def key(self) -> Path:
        """The certificate's key."""
        return self.paths.tls / "node.key"

    def socket(self, name: str) -> Path:
        """The backend's socket *name*: `OPEN`, `CLOSED` or `TALK`."""
        return self.paths.sockets / f"{name}.sock"

    @property
    def files(self) -> Path:
        """What the backend serves as files: `LARGE_FILE` and `MEDIUM_FILE`."""
        return self.work / "files"

    def program(self, name: str) -> Path:
        """The generator or backend *name* that is ours, in C."""
        return build(name, self.work)

    def new_directory(self, name: str) -> Path:
        """A new directory for a proxy called *name*."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))

    def start(self, argv: list[str], *, log: str, environ: dict[str, str] | None = None) -> Session:
        """Run *argv* on the load's core until the run ends."""
        session = Session(argv, cores=str(LOAD_CORE), log=self.work / f"{log}.log", environ=environ)
        self._sessions.append(session)
        return session

    def _make_token(self) -> str:
        sid, secret = new_token()
        record = TokenRecord(
            sid=sid, hash=hash_secret(secret), user="bench", claims="viewer", context="root"
        )
        TokenFile(self.paths.tokens_file).write([record])
        return secret

    def _make_files(self) -> None:
        self.files.mkdir()
        for name, size in ((LARGE_FILE, 10**9), (MEDIUM_FILE, 10**8)):
            (self.files / name).touch()
            os.truncate(self.files / name, size)

    def _start_backend(self) -> None:
        for name in (OPEN, CLOSED, TALK):
            self.socket(name).parent.mkdir(exist_ok=True)
        configuration = self.work / "backend.conf"
        configuration.write_text(
            _BACKEND.format(
                work=self.work,
                open=self.socket(OPEN),
                closed=self.socket(CLOSED),
                manifest=_MANIFEST,
                small=SMALL,
            )
        )
        answering = self.start(["nginx", "-c", str(configuration)], log="backend")
        talking = self.start([str(self.program("talk")), str(self.socket(TALK))], log="talk")
        for name, session in ((OPEN, answering), (CLOSED, answering), (TALK, talking)):
            self._wait_for(self.socket(name), session)

    def _wait_for(self, path: Path, session: Session) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(path))
                    return
                except OSError:
                    time.sleep(0.02)
        raise NotStarted(session.log.read_text())
