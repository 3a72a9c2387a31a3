"""Tokens computed before it is known that they are said."""
