"""Servers of tiny models."""

from server_fixtures import echo, image, serve, vision, vision_engine, vision_model

__all__ = ["echo", "image", "serve", "vision", "vision_engine", "vision_model"]
