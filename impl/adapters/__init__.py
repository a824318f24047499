"""Adapters that put foreign implementations under test."""
