"""Runs a step of `hero.identity.node` in processes that die at each of its disk operations.

``python -m tests.identity.killed STEP HOME`` prints a line for each operation that it died at:
what the machine's identity was afterwards, and that the step went through when repeated.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from hero.errors import HeroError
from hero.identity.authority import Authority
from hero.identity.node import (
    NodeIdentity,
    ensure_master_identity,
    install_certificate,
    make_key_and_csr,
)
from hero.paths import HeroPaths

_OPERATIONS = ("rename", "fsync", "mkdir", "unlink", "rmdir", "open")


def die_at(count: int) -> None:
    """Exit this process, without any clean-up, at the *count*-th disk operation from now."""
    left = count

    def wrap(operation):
        def dying(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            return operation(*args, **kwargs)

        return dying

    for name in _OPERATIONS:
        setattr(os, name, wrap(getattr(os, name)))


def join(paths: HeroPaths, authority: Authority, sid: str) -> None:
    """What `hero join` does to the disk."""
    issued = authority.issue(make_key_and_csr(paths.tls), node_sid=sid, addresses=["10.0.0.1"])
    install_certificate(paths.tls, issued, authority.ca_pem)


def main(step: str, home: Path) -> None:
    """Kill *step* everywhere."""
    template = HeroPaths(home=home / "template", sockets=home / "s")
    template.ensure()
    first = Authority.create(home / "first", "cluster-first")
    second = Authority.create(home / "second", "cluster-second")

    def run(paths: HeroPaths) -> None:
        if step == "join":
            join(paths, second, "node-second0000")
        elif step == "create":
            ensure_master_identity(paths, ["10.0.0.1"])
        else:
            ensure_master_identity(paths, ["10.0.0.1", "10.0.0.2"])

    if step == "join":
        join(template, first, "node-first00000")
    elif step == "reissue":
        ensure_master_identity(template, ["10.0.0.1"])
    for count in range(1, 200):
        work = home / f"work{count}"
        shutil.copytree(template.home, work)
        paths = HeroPaths(home=work, sockets=home / "s")
        child = os.fork()
        if child == 0:
            die_at(count)
            run(paths)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        try:
            found = NodeIdentity.load(paths.tls)
            seen = f"{found.cluster_id} {found.node_sid} {len(found.addresses)}"
        except HeroError as error:
            seen = error.kind
        authority = (paths.tls / "ca.crt").read_bytes() if (paths.tls / "ca.crt").exists() else None
        run(paths)
        if step != "join" and authority is not None:
            assert (paths.tls / "ca.crt").read_bytes() == authority
        assert NodeIdentity.load(paths.tls)
        if os.waitstatus_to_exitcode(status) == 0:
            return
        print(seen)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
