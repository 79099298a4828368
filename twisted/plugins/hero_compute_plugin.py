from twisted.application.service import ServiceMaker

hero_compute = ServiceMaker(
    "Hero compute",
    "hero.compute.tap",
    "The virtual machines of this node",
    "hero-compute",
)
