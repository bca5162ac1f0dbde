"""Ablations as one file: a grid of runs, several seeds each, to tables with intervals and tests."""

from __future__ import annotations

from basereward.study.spec import Cell, PlannedRun, Study, load_study, planned_runs

__all__ = ["Cell", "PlannedRun", "Study", "load_study", "planned_runs"]
