"""Join tokens as text."""

from __future__ import annotations

import base64
import hashlib

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.identity.errors import InvalidJoinToken
from hero.identity.join_token import JoinTokenString

TOKEN = JoinTokenString(
    "cluster-0123456789", ["https://10.0.0.1:9998", "https://[fd00::1]"], "ab" * 32, "s" * 43
)


class JoinTokenTests(SynchronousTestCase):
    """`JoinTokenString`."""

    def problem(self, text: str) -> str:
        with self.assertRaises(InvalidJoinToken) as caught:
            JoinTokenString.parse(text)
        self.assertNotIn("s" * 43, str(caught.exception))
        return caught.exception.detail

    def test_round_trip(self) -> None:
        """What goes in comes out."""
        self.assertEqual(JoinTokenString.parse(TOKEN.encode()), TOKEN)
        self.assertEqual(TOKEN.secret.reveal(), "s" * 43)

    def test_wrapped_lines(self) -> None:
        """A token that a terminal has wrapped is still good."""
        text = TOKEN.encode()
        self.assertEqual(JoinTokenString.parse(f"  {text[:70]}\r\n {text[70:]}\n"), TOKEN)

    def test_not_printed(self) -> None:
        """The secret shows in the token's text only."""
        self.assertNotIn("s" * 43, repr(TOKEN))

    def test_cut(self) -> None:
        """A token that lacks its end is known as such, wherever it was cut."""
        text = TOKEN.encode()
        for length in range(13, len(text)):
            self.assertIn("cut off", self.problem(text[:length]))

    def test_mistyped(self) -> None:
        """So is one with another letter in it."""
        text = TOKEN.encode()
        for at in range(12, len(text) - 1):
            self.problem(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])

    def test_other_things(self) -> None:
        """Things that are often taken for join tokens are named."""
        self.assertIn("bearer token", self.problem("hero_abcdef"))
        self.assertIn("newer version", self.problem("hero-join-2.abcdef"))
        self.assertIn("starts with", self.problem("https://10.0.0.1"))
        self.assertIn("starts with", self.problem(""))
        self.assertIn("too long", self.problem("hero-join-1." + "A" * 10000))

    def test_contents(self) -> None:
        """A token must say where the cluster is and how to know it."""
        for change in (
            {"cluster_id": ""},
            {"explorer_urls": []},
            {"explorer_urls": ["http://10.0.0.1"]},
            {"ca_sha256": "abc"},
            {"ca_sha256": "AB" * 32},
            {"secret": ""},
        ):
            self.problem(attrs.evolve(TOKEN, **change).encode())

    @settings(max_examples=200, deadline=None)
    @given(st.binary())
    @example(b'["\xff",[],"",""]')
    def test_any_content(self, content: bytes) -> None:
        """Nor does any content whose checksum is right."""
        encoded = base64.urlsafe_b64encode(content + hashlib.sha256(content).digest()[:4])
        self.problem("hero-join-1." + encoded.decode())

    @settings(max_examples=200, deadline=None)
    @given(st.text(st.characters()), st.booleans())
    def test_any_text(self, text: str, prefixed: bool) -> None:
        """No text does more than be refused."""
        self.assertRaises(InvalidJoinToken, JoinTokenString.parse, "hero-join-1." * prefixed + text)
