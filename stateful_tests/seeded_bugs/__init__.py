"""Drivers with one known bug each: the harness must find them all."""
