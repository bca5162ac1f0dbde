"""Rewards over HTTP: an ASGI application over engines, a scheduler, and one file for each API it speaks."""
