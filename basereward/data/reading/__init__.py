"""Rows of files: JSON, JSONL, Parquet and Arrow, from paths, archives and hub ids."""
