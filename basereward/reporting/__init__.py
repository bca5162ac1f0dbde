"""Primitives of reports: tables, figures, progress bars, and a comparison as a card."""
