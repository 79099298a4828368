"""HAProxy, Debian's package."""

from __future__ import annotations

from bench.router.lab import OPEN, TALK
from bench.router.peers.peer import Command, Order, Peer, first_line

_CONFIGURATION = """
global
  nbthread {workers}
  maxconn 9900
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
  option http-keep-alive
  http-reuse always
frontend front
  bind 127.0.0.1:{plain} backlog 4096
  bind 127.0.0.1:{tls} ssl crt {pem} backlog 4096
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
  use_backend talk if {{ path_beg /bench/talk/ }}
  use_backend open if {{ path_beg /bench/open/ }}
backend open
  http-request set-path %[path,bytes(11)]
  server open unix@{open} pool-max-conn -1
backend talk
  http-request set-path %[path,bytes(11)]
  server talk unix@{talk}
"""


class HAProxy(Peer):
    """One thread for each worker."""

    name = "haproxy"

    def version(self) -> str:
        return " ".join(first_line("haproxy", "-v").split()[:3])

    def command(self, order: Order) -> Command:
        pem = order.directory / "server.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(order.lab.certificate.read_bytes() + order.lab.key.read_bytes())
        configuration = order.directory / "haproxy.cfg"
        configuration.write_text(
            _CONFIGURATION.format(
                workers=order.workers,
                pem=pem,
                open=order.lab.socket(OPEN),
                talk=order.lab.socket(TALK),
                plain=order.ports.plain,
                tls=order.ports.tls,
            )
        )
        return Command(argv=["haproxy", "-db", "-f", str(configuration)])
