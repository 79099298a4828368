"""What goes over a cable: frames as the kernel shows them to a packet socket (packet(7))."""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile

import attrs

#: Runs in the namespace: writes every frame of a device, after its length, to standard output.
_LISTENER = """
import socket, struct, sys
ETH_P_ALL, SO_RCVBUFFORCE = 3, 33
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as line:
    line.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    line.bind((sys.argv[1], 0))
    print("listening", file=sys.stderr, flush=True)
    while True:
        frame = line.recv(1 << 18)
        sys.stdout.buffer.write(struct.pack("!I", len(frame)) + frame)
        sys.stdout.buffer.flush()
"""

_IPV4, _TCP = 0x0800, 6
_SYN = 0x02

#: RFC 8446 section 5.1: the content types of a record, and the most that one holds.
_RECORD_TYPES = {20, 21, 22, 23}
_MAX_RECORD = 2**14 + 256

#: A direction of a connection: source and destination, each an address and a port.
Way = tuple[tuple[str, int], tuple[str, int]]


@attrs.define
class Stream:
    """What one side of a connection sent, from its SYN on."""

    first: int
    segments: dict[int, bytes] = attrs.field(factory=dict)

    def add(self, sequence: int, data: bytes) -> None:
        """Take a segment; the longest of those that begin at the same byte counts."""
        offset = (sequence - self.first) % 2**32
        if len(data) > len(self.segments.get(offset, b"")):
            self.segments[offset] = data

    def content(self) -> bytes:
        """The bytes in order. Raises `ValueError` where one was not seen."""
        content = b""
        for offset, data in sorted(self.segments.items()):
            if offset > len(content):
                raise ValueError(f"bytes {len(content)} to {offset} were not captured")
            content += data[len(content) - offset :]
        return content


class Capture:
    """Everything that passes *device* in *namespace* from `start` to `stop`."""

    def __init__(self, namespace: str, device: str) -> None:
        self._command = [
            *("ip", "netns", "exec", namespace),
            *(sys.executable, "-c", _LISTENER, device),
        ]
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; what is sent after this is captured."""
        self._process = subprocess.Popen(
            self._command, stdout=self._file, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stderr is not None
        if self._process.stderr.readline() != b"listening\n":
            raise AssertionError(self._process.stderr.read().decode())

    def stop(self) -> None:
        """End."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=20)
            self._process = None

    def frames(self) -> list[bytes]:
        """The Ethernet frames, in order."""
        self._file.seek(0)
        data = self._file.read()
        frames, position = [], 0
        while position + 4 <= len(data):
            (length,) = struct.unpack_from("!I", data, position)
            frames.append(data[position + 4 : position + 4 + length])
            position += 4 + length
        return frames

    def streams(self) -> dict[Way, Stream]:
        """The TCP connections that began meanwhile, by direction.

        Raises `ValueError` for an IPv4 packet that is anything but TCP.
        """
        streams: dict[Way, Stream] = {}
        for frame in self.frames():
            if int.from_bytes(frame[12:14], "big") != _IPV4:
                continue
            header = (frame[14] & 0x0F) * 4
            (total,) = struct.unpack_from("!H", frame, 16)
            if frame[23] != _TCP:
                raise ValueError(f"a packet of IP protocol {frame[23]}")
            segment = frame[14 + header : 14 + total]
            source, destination, sequence = struct.unpack_from("!HHI", segment)
            way = ((_address(frame[26:30]), source), (_address(frame[30:34]), destination))
            if segment[13] & _SYN:
                streams[way] = Stream(sequence + 1)
            elif way in streams:
                streams[way].add(sequence, segment[(segment[12] >> 4) * 4 :])
        return streams

    def close(self) -> None:
        """End, and forget."""
        self.stop()
        self._file.close()


def what_is_not_tls(content: bytes) -> bytes:
    """The rest of *content* from the first byte that is not part of a TLS record; else empty.

    A last record may be cut short.
    """
    position = 0
    while position < len(content):
        head = content[position : position + 5]
        length = int.from_bytes(head[3:5], "big")
        proper = head[0] in _RECORD_TYPES and head[1:2] in (b"", b"\x03") and length <= _MAX_RECORD
        if not proper:
            return content[position:]
        position += 5 + length
    return b""


def _address(packed: bytes) -> str:
    return ".".join(str(octet) for octet in packed)
