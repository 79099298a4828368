"""nginx, Debian's package."""

from __future__ import annotations

import signal

from bench.router.lab import OPEN, TALK
from bench.router.peers.peer import Command, Order, Peer, Proxy, first_line

_CONFIGURATION = """
user root;
daemon off;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600;
  client_max_body_size 0;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  ssl_protocols TLSv1.3;
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  ssl_session_tickets on;
  upstream open {{ server unix:{open}; keepalive 128; keepalive_requests 1000000000; }}
  upstream talk {{ server unix:{talk}; }}
  map $http_upgrade $connection_field {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{plain} backlog=4096{reuseport};
    listen 127.0.0.1:{tls} ssl backlog=4096{reuseport};
    proxy_http_version 1.1;
    proxy_read_timeout 600;
    proxy_request_buffering off;
    proxy_set_header Host $http_host;
    proxy_set_header Connection $connection_field;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    location /bench/open/ {{ proxy_pass http://open/; }}
    location /bench/talk/ {{ proxy_pass http://talk/; }}
  }}
}}
"""


class Nginx(Peer):
    """What the others are compared with. Buffers are nginx's defaults."""

    name = "nginx"
    worker_processes = True
    restarts = True

    def version(self) -> str:
        return first_line("nginx", "-v").partition(": ")[2].replace("/", " ")

    def restart(self, proxy: Proxy) -> None:
        """New worker processes; its master stays (``nginx -s reload``)."""
        proxy.session.process.send_signal(signal.SIGHUP)

    def command(self, order: Order) -> Command:
        configuration = order.directory / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                workers=order.workers,
                directory=order.directory,
                certificate=order.lab.certificate,
                key=order.lab.key,
                open=order.lab.socket(OPEN),
                talk=order.lab.socket(TALK),
                plain=order.ports.plain,
                tls=order.ports.tls,
                reuseport=" reuseport" if order.workers > 1 else "",
            )
        )
        return Command(argv=["nginx", "-c", str(configuration)])
