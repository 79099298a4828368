"""Tests of the hypervisors."""
