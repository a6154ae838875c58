"""Counts words instead of letters: the smallest change."""
