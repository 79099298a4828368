"""Host names and IP addresses."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.errors import InvalidConfiguration
from hero.identity.addresses import host_of, host_of_url, normalize_address, normalize_addresses


class AddressTests(SynchronousTestCase):
    """`normalize_address` and `host_of_url`."""

    def test_one_form(self) -> None:
        """Each address has one form, so that two spellings of it compare equal."""
        for text, wanted in {
            "10.0.0.1": "10.0.0.1",
            " 10.0.0.1 ": "10.0.0.1",
            "[FD00:0::1]": "fd00::1",
            "Node.Example.": "node.example",
            "bücher.example": "xn--bcher-kva.example",
            "my_node": "my_node",
        }.items():
            self.assertEqual(normalize_address(text), wanted)
        self.assertEqual(normalize_addresses(["A", "a.", "::1", "[::1]"]), ["a", "::1"])

    def test_refused(self) -> None:
        """Wildcards, URLs, ports and broken addresses do not get into certificates."""
        for text in (
            "", ".", "*", "*.example", "a b", "a/b", "10.0.0.1:80", "10.0.0.256", "10.0.0",
            "-a", "a-", "a..b", "https://a", "x" * 64, "fe80::1%eth0/64", "[::1",
        ):  # fmt: skip
            self.assertRaises(InvalidConfiguration, normalize_address, text)

    def test_host_of_url(self) -> None:
        """The host of a URL comes without port and brackets."""
        self.assertEqual(host_of_url("https://10.0.0.1:9998"), "10.0.0.1")
        self.assertEqual(host_of_url("https://[fd00::1]:9998/x"), "fd00::1")
        self.assertEqual(host_of_url("https://Master.Example"), "master.example")
        for url in ("", "10.0.0.1", "https://", "https://[::1", "https://*"):
            self.assertRaises(InvalidConfiguration, host_of_url, url)

    def test_host_of(self) -> None:
        """An advertised address may be written with a scheme and a port."""
        for text, wanted in {
            "https://10.0.0.1:9998": "10.0.0.1",
            "10.0.0.1:9998": "10.0.0.1",
            "10.0.0.1": "10.0.0.1",
            "[fd00::1]:9998": "fd00::1",
            "[fd00::1]": "fd00::1",
            "fd00::1": "fd00::1",
            " Master.Example:443 ": "master.example",
        }.items():
            self.assertEqual(host_of(text), wanted)
        for text in (":443", "a:b", "[]:1", "*:443", "::1:", "a:123456"):
            self.assertRaises(InvalidConfiguration, host_of, text)

    @settings(deadline=None)
    @given(st.text(st.characters()))
    def test_any_text(self, text: str) -> None:
        """Whatever is accepted is in its normal form already."""
        try:
            address = normalize_address(text)
        except InvalidConfiguration:
            return
        self.assertEqual(normalize_address(address), address)
