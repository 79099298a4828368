"""The one network door of a node.

A request enters at a `hero.router.front.Front` (one per connection), which reads its head with
`hero.router.head`, finds its route with `hero.router.target` and `hero.router.routes`, and asks
`hero.router.door` who is calling. The route's `hero.router.proxy.ReverseProxyResource` makes an
`hero.router.exchange.Exchange`, which carries the request to a pooled connection of
`hero.router.upstream` and the answer back.

`hero.router.discovery` keeps the routes in step with the socket directory. `hero.router.tap`
assembles the process: `hero.router.serving` takes connections, in the process itself or in its
`hero.router.workers`; `hero.router.service` takes up the router's place and gives it away, to a
successor that asks for it by `hero.router.takeover`.
"""
