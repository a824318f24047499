"""Reads histories, writes files; never touches a driver."""
