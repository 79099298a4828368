"""Tests of hero.router.fast."""
