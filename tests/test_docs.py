"""The documentation: every link leads somewhere, and everything that has to be there is."""

from __future__ import annotations

import configparser
import re
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import hero
from hero.cli.reference import reference as cli_reference
from hero.rpc.reference import reference as rpc_reference
from hero.settings import environment_name

ROOT = Path(__file__).parent.parent

#: Pages that `make docs` writes.
GENERATED = {
    ROOT / "docs/reference/cli.md": cli_reference,
    ROOT / "docs/reference/rpc.md": rpc_reference,
}
WRITTEN = sorted(page for page in ROOT.glob("docs/**/*.md") if page not in GENERATED)
PAGES = [ROOT / "README.md", *WRITTEN, *GENERATED, ROOT / "newsfragments/README.md"]

PROCESSES = ("router", "compute", "explorer", "ui")


def prose(page: Path) -> str:
    """The text of *page* without its code blocks."""
    text = GENERATED[page]() if page in GENERATED else page.read_text()
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    """Where *page* leads."""
    without_code = re.sub(r"`[^`\n]+`", "", prose(page))
    return re.findall(r"\]\(([^)\s]+)\)", without_code)


def anchors(page: Path) -> set[str]:
    """The fragments that the headings of *page* have on the web."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


class LinkTests(SynchronousTestCase):
    """Links within the documentation."""

    def test_every_link_leads_somewhere(self) -> None:
        """To a file that is there, and to a heading that it has."""
        broken = []
        for page in PAGES:
            for target in links(page):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, fragment = target.partition("#")
                file = (page.parent / path).resolve() if path else page
                missing = file not in GENERATED and not file.exists()
                if missing or (fragment and fragment not in anchors(file)):
                    broken.append(f"{page.relative_to(ROOT)}: {target}")
        self.assertEqual(broken, [])

    def test_every_page_can_be_found(self) -> None:
        """The index of the documentation names each page."""
        index = ROOT / "docs/README.md"
        listed = {
            (index.parent / target).resolve()
            for target in re.findall(r"\]\(([^)#\s]+)", index.read_text())
        }
        self.assertEqual(set(WRITTEN) - {index} - listed, set())


class CompletenessTests(SynchronousTestCase):
    """What has to be written down."""

    def test_every_setting_is_explained(self) -> None:
        """Each option of each process is in the configuration reference, with its variable."""
        text = (ROOT / "docs/reference/configuration.md").read_text()
        missing = []
        for process in PROCESSES:
            options = import_module(f"hero.{process}.tap").Options({})
            for name in options.defaults:
                if f"`--{name}`" not in text or f"`{environment_name(name)}`" not in text:
                    missing.append(f"{process} --{name} {environment_name(name)}")
        self.assertEqual(missing, [])

    def test_every_dependency_has_its_reason(self) -> None:
        """Each package that setup.cfg asks for is in the page about dependencies."""
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        wanted = setup["options"]["install_requires"].split()
        for extra in setup["options.extras_require"].values():
            wanted += [line for line in extra.split() if ">=" in line]
        text = (ROOT / "docs/dependencies.md").read_text().lower()
        names = {re.split(r"[\[>=]", requirement)[0].lower() for requirement in wanted}
        self.assertEqual({name for name in names if name not in text}, set())

    def test_the_readme_says_how_to_begin(self) -> None:
        """The three commands, and the version is one that exists."""
        text = (ROOT / "README.md").read_text()
        for command in ("make run", "make demo", "make test"):
            self.assertIn(command, text)
        self.assertRegex(hero.__version__, r"\d+\.\d+\.\d+")
