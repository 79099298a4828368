from twisted.application.service import ServiceMaker

hero_ui = ServiceMaker(
    "Hero ui",
    "hero.ui.tap",
    "The web console",
    "hero-ui",
)
