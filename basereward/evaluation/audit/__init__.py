"""Audits: what a reward model looks at, what it pays for that is not quality, and how steady it is."""
