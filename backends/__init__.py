"""Backends: where proxy runs come from, installed as ``lawkit.backends``."""
