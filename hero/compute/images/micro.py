"""The image ``micro``: a Linux kernel and busybox, made from the distribution's own packages.

It boots to a shell on the serial console within a couple of seconds even without KVM, prints
``hero micro: <name> ready`` on the way, and powers off when asked to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThreadPool

from hero.compute.errors import ImageUnavailable
from hero.compute.guest import ImageFiles
from hero.compute.images import cpio
from hero.compute.images.modules import Module, load_modules
from hero.compute.images.packages import PackageSource
from hero.compute.interfaces import Progress

NAME = "micro"
DESCRIPTION = "a Linux kernel and busybox, for guests that start within seconds"

#: Goes up whenever an image that an older version built must be built again.
_VERSION = 1
_MANIFEST = "image.json"

#: What is being built is in a directory called this and more.
_WORKSPACE = ".building-micro-"

#: Packages whose only business is to depend on the kernel of the day: Debian's, Ubuntu's.
_KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-kvm")
_KERNEL_PARTS = ("linux-image-", "linux-modules-")

_MODULES = ("button", "evdev", "pvpanic_mmio", "virtio_pci", "virtio_blk", "virtio_rng")
_NETWORK_MODULES = ("virtio_net",)

_CMDLINE = "console=ttyS0,115200 quiet loglevel=3 random.trust_cpu=on reboot=t"

_UDHCPC = b"""#!/bin/sh
case $1 in
  bound|renew)
    ip addr flush dev $interface
    ip addr add $ip/${mask:-24} dev $interface
    [ -n "$router" ] && ip route replace default via $router
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
"""


def load_micro(directory: Path) -> ImageFiles | None:
    """The image in *directory*, if a build of this version was finished there and is complete."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    kernel, initrd = directory / "vmlinuz", directory / "initrd"
    if manifest.get("version") != _VERSION or not (kernel.is_file() and initrd.is_file()):
        return None
    return ImageFiles(
        name=NAME,
        kernel=kernel,
        initrd=initrd,
        cmdline=_CMDLINE,
        digest=manifest["digest"],
    )


async def build_micro(reactor: Any, directory: Path, progress: Progress) -> ImageFiles:
    """Build the image into *directory*, replacing what was there once all is done.

    Raises `ImageUnavailable`. Whatever happens, nothing half-made stays in *directory*.
    """
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pool = reactor.getThreadPool()
    for leftover in directory.parent.glob(f"{_WORKSPACE}*"):
        await deferToThreadPool(reactor, pool, shutil.rmtree, leftover, ignore_errors=True)
    workspace = Path(tempfile.mkdtemp(prefix=_WORKSPACE, dir=directory.parent))
    try:
        source = PackageSource(reactor, workspace)
        progress(0.05, "looking for a kernel")
        packages = await _kernel_packages(source)
        progress(0.1, f"downloading {packages[-1]} and busybox")
        root = await source.unpack([*packages, "busybox-static"])
        progress(0.8, "assembling the first file system")
        await deferToThreadPool(reactor, pool, _assemble, root, workspace / "image")
        await deferToThreadPool(reactor, pool, _replace, workspace / "image", directory)
    finally:
        await deferToThreadPool(reactor, pool, shutil.rmtree, workspace, ignore_errors=True)
    progress(1.0, "ready")
    image = load_micro(directory)
    assert image is not None, "the image was just built"
    return image


async def _kernel_packages(source: PackageSource) -> list[str]:
    """The packages with the newest kernel of the distribution and its modules."""
    kernel = await source.first_available(_KERNELS)
    if kernel is None:
        await source.refresh()
        kernel = await source.first_available(_KERNELS)
    if kernel is None:
        raise ImageUnavailable(
            f"none of the packages {', '.join(_KERNELS)} can be had from this system's "
            "distribution",
            hint="building the image needs the repositories of Debian or Ubuntu for amd64",
        )
    found: list[str] = []
    unseen = [kernel]
    while unseen:
        package = unseen.pop(0)
        parts = [
            name
            for name in await source.depends(package) or []
            if name.startswith(_KERNEL_PARTS) and name not in found
        ]
        found += parts
        unseen += parts
    return found


def _assemble(root: Path, image: Path) -> None:
    """Make the image's files in the new directory *image* from the packages in *root*."""
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise ImageUnavailable("the kernel's package has no boot/vmlinuz")
    busybox = next(
        (path for name in ("bin", "usr/bin") if (path := root / name / "busybox").is_file()), None
    )
    if busybox is None:
        raise ImageUnavailable("the package busybox-static has no bin/busybox")
    modules = load_modules(root, (*_MODULES, *_NETWORK_MODULES))
    image.mkdir(mode=0o700)
    shutil.copyfile(kernels[-1], image / "vmlinuz")
    with (image / "initrd").open("wb") as initrd:
        cpio.write_archive(_first_file_system(busybox.read_bytes(), modules), initrd)
    digest = hashlib.sha256()
    for name in ("vmlinuz", "initrd"):
        with (image / name).open("rb") as part:
            digest.update(hashlib.file_digest(part, "sha256").digest())
            os.fsync(part.fileno())
    manifest = {"version": _VERSION, "digest": digest.hexdigest(), "kernel": kernels[-1].name}
    with (image / _MANIFEST).open("w") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())


def _first_file_system(busybox: bytes, modules: list[Module]) -> Iterator[cpio.Entry]:
    init = files("hero.compute.images").joinpath("init.sh").read_bytes()
    for name in ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "lib/modules"):
        yield cpio.directory(name)
    for name in ("proc", "root", "sbin", "sys", "usr", "usr/bin", "usr/sbin"):
        yield cpio.directory(name)
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.character_device("dev/null", 1, 3)
    yield cpio.file("init", init, 0o755)
    yield cpio.file("bin/busybox", busybox, 0o755)
    yield cpio.link("bin/sh", "busybox")
    yield cpio.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n")
    yield cpio.file("etc/group", b"root:x:0:\n")
    yield cpio.file("etc/udhcpc.sh", _UDHCPC, 0o755)
    yield cpio.file(
        "etc/acpi/PWRF/00000080", b"#!/bin/sh\nsync\numount -a -r\npoweroff -f\n", 0o755
    )
    for module in modules:
        yield cpio.file(f"lib/modules/{module.filename}", module.data)
    yield cpio.file("lib/modules/order", "".join(f"{m.filename}\n" for m in modules).encode())


def _replace(image: Path, directory: Path) -> None:
    """Put *image* where *directory* is, which goes away. Guests that use it keep its files."""
    retired = image.parent / "retired"
    if directory.exists():
        os.rename(directory, retired)
    os.rename(image, directory)
