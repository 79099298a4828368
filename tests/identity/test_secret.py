"""Secrets do not print themselves."""

from __future__ import annotations

import copy
import pickle

from twisted.trial.unittest import SynchronousTestCase

from hero.identity.secret import Secret, as_secret


class SecretTests(SynchronousTestCase):
    """`Secret`."""

    def test_not_printed(self) -> None:
        """However it is printed, the text is not there."""
        secret = Secret("swordfish")
        for text in (str(secret), repr(secret), f"{secret}", "%s" % secret, f"{[secret]}"):  # noqa: UP031
            self.assertIn("***", text)
            self.assertNotIn("swordfish", text)
        self.assertRaises(TypeError, pickle.dumps, secret)
        self.assertRaises(TypeError, copy.copy, secret)

    def test_used(self) -> None:
        """It can be asked for, compared and kept in sets."""
        secret = Secret("swordfish")
        self.assertEqual(secret.reveal(), "swordfish")
        self.assertEqual(secret, as_secret("swordfish"))
        self.assertIs(as_secret(secret), secret)
        self.assertNotEqual(secret, Secret("other"))
        self.assertNotEqual(secret, "swordfish")
        self.assertEqual(len({secret, Secret("swordfish")}), 1)
        self.assertFalse(Secret(""))
