from twisted.application.service import ServiceMaker

hero_explorer = ServiceMaker(
    "Hero explorer",
    "hero.explorer.tap",
    "The cluster: nodes, placement, joining, and every VM by one API",
    "hero-explorer",
)
