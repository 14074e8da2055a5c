"""Proxy runs on five kinds of English text, small enough for two cores."""
