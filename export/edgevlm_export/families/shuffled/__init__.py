"""Towers whose neighbouring patches become one token by pixel shuffle."""
