"""How a machine becomes a node, keeps its certificate, and stops being one.

A join token is a single-use secret, kept as a hash and bound to the key of the first request that
uses it; the same key may ask again, so that a join whose answer was lost can be repeated.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs
from sqlalchemy import Connection, select, update

from hero.errors import Conflict, InvalidConfiguration
from hero.explorer.model import Certificate, JoinToken, Membership
from hero.explorer.nodes import NodeRecord, is_router_address
from hero.explorer.registry import Registry
from hero.explorer.schema import join_tokens
from hero.identity.addresses import host_of_url, normalize_address
from hero.identity.authority import Authority, request_key_fingerprint
from hero.identity.certificates import certificates_from_pem, read_addresses
from hero.identity.errors import (
    CertificateRefused,
    JoinTokenExpired,
    JoinTokenOtherCluster,
    JoinTokenUnknown,
    JoinTokenUsed,
)
from hero.identity.join_token import JoinTokenString
from hero.identity.revocation import RevokedNodes
from hero.identity.secret import Secret
from hero.identity.tokens import hash_secret
from hero.rpc.declare import Call
from hero.sids import new_sid
from hero.store import Database

_NEW_TOKEN = "make a new one on the master: hero token create"


class Joining:
    """Lets machines in. *addresses* tells the URLs by which nodes reach this explorer.

    *mode* is ``master``, or ``local`` where there is to be one machine only. *revoked* lists
    the nodes whose certificates this machine's router refuses.
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        authority: Authority,
        *,
        mode: str,
        addresses: Callable[[], Sequence[str]],
        revoked: RevokedNodes,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._registry = registry
        self._authority = authority
        self._mode = mode
        self._addresses = addresses
        self._revoked = revoked
        self._now = now

    async def create_token(self, call: Call, lifetime: float) -> JoinToken:
        """A token with which one machine can join."""
        if self._mode == "local":
            raise Conflict(
                "this explorer runs in local mode, which is for one machine",
                hint="run `hero up --mode master` to let other machines join; nothing is lost",
            )
        secret = secrets.token_urlsafe(32)
        token = JoinToken(
            sid=new_sid("join"),
            token=JoinTokenString(
                cluster_id=self._authority.cluster_id,
                explorer_urls=list(self._addresses()),
                ca_sha256=self._authority.fingerprint,
                secret=Secret(secret),
            ).encode(),
            expires_at=self._now() + timedelta(seconds=lifetime),
        )
        insert = join_tokens.insert().values(
            sid=token.sid,
            hash=hash_secret(secret),
            created_by=call.caller.responsible,
            created_at=self._now(),
            expires_at=token.expires_at,
        )
        await self._database.run(lambda c: c.execute(insert))
        return token

    async def join(
        self, *, cluster_id: str, secret: str, csr: str, name: str, advertise_address: str
    ) -> Membership:
        """Make the machine with the key of *csr* a node."""
        if cluster_id != self._authority.cluster_id:
            raise JoinTokenOtherCluster(
                f"the token is for the cluster {cluster_id}; this is {self._authority.cluster_id}",
                hint="use a token of this cluster, or the address of that one",
            )
        if not is_router_address(advertise_address):
            raise InvalidConfiguration(
                f"{advertise_address!r} is not how other machines reach a router",
                hint="write --advertise-address https://host:port, with no path",
            )
        key_hash = request_key_fingerprint(csr)
        token = await self._usable(secret, key_hash)
        if token.node_sid is None:
            record = await self._admit(token.sid, key_hash, name, advertise_address)
        else:
            record = await self._again(token.node_sid, advertise_address)
        chain, expires = self._issue(csr, record, [])
        await self._registry.change(record.sid, certificate_expires=expires)
        return Membership(
            node_sid=record.sid,
            cluster_id=self._authority.cluster_id,
            certificate=chain,
            ca=self._authority.ca_pem,
            explorer_addresses=list(self._addresses()),
            heartbeat_interval=self._registry.interval,
        )

    async def renew(self, *, certificate: str, csr: str) -> Certificate:
        """A new certificate for a node that proves its key. Its name and addresses stay."""
        identity = self._authority.check_renewal(certificate, csr)
        record = self._registry.known(identity.node_sid)
        if record is None or record.removed_at is not None:
            raise CertificateRefused(
                f"{identity.node_sid} was removed from the cluster",
                hint="join again with a new token from `hero token create`",
            )
        old = certificates_from_pem(certificate.encode(), "the certificate to renew")[0]
        chain, expires = self._issue(csr, record, read_addresses(old))
        await self._registry.change(record.sid, certificate_expires=expires)
        return Certificate(certificate=chain, ca=self._authority.ca_pem, expires_at=expires)

    async def remove(self, sid: str) -> NodeRecord:
        """Refuse the node from now on."""
        record = await self._registry.change(sid, removed_at=self._now())
        self.write_revoked()
        return record

    def write_revoked(self) -> None:
        """Tell this machine's router whose certificates to refuse."""
        self._revoked.write(self._registry.removed())

    async def _usable(self, secret: str, key_hash: str) -> Any:
        query = select(join_tokens).where(join_tokens.c.hash == hash_secret(secret))
        row = await self._database.run(lambda c: c.execute(query).one_or_none())
        if row is None:
            raise JoinTokenUnknown("this cluster never made such a token", hint=_NEW_TOKEN)
        if row.key_hash not in (None, key_hash):
            raise JoinTokenUsed(
                f"another machine has used the token {row.sid}; each machine needs its own",
                hint=_NEW_TOKEN,
            )
        if row.expires_at <= self._now():
            raise JoinTokenExpired(
                f"the token {row.sid} was good until {row.expires_at:%Y-%m-%d %H:%M} UTC",
                hint=_NEW_TOKEN,
            )
        return row

    async def _admit(
        self, token_sid: str, key_hash: str, name: str, advertise_address: str
    ) -> NodeRecord:
        record = NodeRecord(
            sid=new_sid("node"),
            name=name,
            advertise_address=advertise_address,
            joined_at=self._now(),
        )
        unused = (join_tokens.c.sid == token_sid, join_tokens.c.key_hash.is_(None))
        bind = update(join_tokens).where(*unused).values(key_hash=key_hash, node_sid=record.sid)

        def use_up(connection: Connection) -> None:
            if connection.execute(bind).rowcount == 0:
                raise JoinTokenUsed(
                    f"another request is using the token {token_sid} at this moment",
                    hint="if that was this machine, run the same command again; else " + _NEW_TOKEN,
                )

        await self._registry.add(record, use_up)
        self.write_revoked()
        return record

    async def _again(self, node_sid: str, advertise_address: str) -> NodeRecord:
        record = self._registry.known(node_sid)
        if record is None or record.removed_at is not None:
            raise JoinTokenUsed(
                "the node that this token made was removed from the cluster", hint=_NEW_TOKEN
            )
        return await self._registry.change(node_sid, advertise_address=advertise_address)

    def _issue(
        self, csr: str, record: NodeRecord, addresses: Sequence[str]
    ) -> tuple[str, datetime]:
        hosts = [normalize_address(address) for address in addresses]
        if not record.local:
            hosts.append(host_of_url(record.advertise_address))
        chain = self._authority.issue(
            csr,
            node_sid=record.sid,
            addresses=list(dict.fromkeys(hosts)),
            explorer=record.sid == self._registry.local_sid,
        )
        return chain, certificates_from_pem(chain.encode(), "the new certificate")[
            0
        ].not_valid_after_utc


@attrs.frozen
class Advertised:
    """The URLs by which other machines reach this one's router.

    *configured* is the option ``--advertise-address``: URLs, hosts, or hosts with ports, with
    commas between. What it leaves out is taken from *listening*, which tells what the router
    listens on now, and from *hosts*, the machine's own addresses.
    """

    configured: str
    listening: Callable[[], Sequence[str]]
    hosts: Callable[[], Sequence[str]]

    def urls(self) -> list[str]:
        """``https://host`` or ``https://host:port``, the best first."""
        parts = [part.strip() for part in self.configured.split(",") if part.strip()]
        return [self._url(part) for part in parts or list(self.hosts())]

    def host_names(self) -> list[str]:
        """The hosts in `urls`."""
        return [host_of_url(url) for url in self.urls()]

    def _url(self, part: str) -> str:
        if "://" in part:
            return part.rstrip("/")
        bare = f"[{part}]" if part.count(":") > 1 and not part.startswith("[") else part
        has_port = bare.rpartition("]")[2].count(":") == 1
        return f"https://{bare}" if has_port else f"https://{bare}{self._port()}"

    def _port(self) -> str:
        for url in self.listening():
            port = url.rpartition("]")[2].rpartition(":")[2].rstrip("/")
            if port.isdigit() and port != "443":
                return f":{port}"
            return ""
        return ""
