"""Who is who, and who may do what.

- `hero.identity.claims`: the caller of a request and its rights, as services see them.
- `hero.identity.authority`: the cluster's CA; `hero.identity.certificates` says what a
  certificate of ours looks like, `hero.identity.user_certificates` a person's, and
  `hero.identity.public_certificate` reads one from elsewhere.
- `hero.identity.node`: this machine's certificate and key, how they are made and replaced.
- `hero.identity.tls`: both ends of a TLS connection, and who the peer is;
  `hero.identity.tls_errors` puts failures into words.
- `hero.identity.join_token`, `hero.identity.pinning`: how a machine that knows one string comes to
  trust a cluster.
- `hero.identity.tokens`, `hero.identity.revocation`: the bearer tokens that count, and the nodes
  that no longer do; `hero.identity.own_tokens` makes those of one machine alone.
"""
