"""Forests: batches in which each prompt is encoded once and its responses branch off it."""

from basereward.forest.forest import IGNORED, Forest, Span, Tree, pack

__all__ = ["IGNORED", "Forest", "Span", "Tree", "pack"]
