from twisted.application.service import ServiceMaker

hero_router = ServiceMaker(
    "Hero router",
    "hero.router.plugin",
    "The one network door of a node: a TLS reverse proxy for the sockets of its services",
    "hero-router",
)
