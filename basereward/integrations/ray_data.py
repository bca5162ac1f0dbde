"""Scoring as a stage of a Ray Data pipeline.

import ray
from basereward.integrations.ray_data import RewardStage

rows = ray.data.read_parquet("s3://bucket/pairs/")
scored = rows.map_batches(
    RewardStage, fn_constructor_args=("MODEL_DIR",), batch_format="pyarrow", batch_size=64, concurrency=8
)
scored.write_parquet("s3://bucket/rewards/")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow


class RewardStage:
    """Adds the columns `rewards` (list of float32) and `error` (string) to rows in our own format or TRL's.

    Each of Ray's actors has a model of its own. Rewards are those of `basereward score`.

    Args:
        model: The directory of a model or an ensemble, which every node sees.
        batch_size: Comparisons a forward pass; the rewards don't depend on it.
        device: `auto` for a GPU where the actor has one.
        root: Directory of images that rows name by relative paths.
    """

    def __init__(self, model: str, *, batch_size: int = 8, device: str = "auto", root: str = ".") -> None:
        import torch

        from basereward.scoring.ensemble import load_model

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model: Any = load_model(model, device=device)
        self.batch_size = batch_size
        self.root = Path(root)

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Return the rows with their rewards, in their order.

        Raises:
            ConfigError: When they have a column of that name already.
        """
        import pyarrow

        from basereward.data.media_paths import Media
        from basereward.errors import ConfigError, DataError
        from basereward.scoring.files import comparison_or_error
        from basereward.scoring.ordered import score_in_order

        for name in ("rewards", "error"):
            if name in table.column_names:
                raise ConfigError(f"the rows have a column {name!r} already; drop or rename it before")
        media = Media(self.root, roots=("/",))
        items = [
            comparison_or_error(row, media, self.root, file="rows", line=line)
            for line, row in enumerate(table.to_pylist(), start=1)
        ]
        results = [result for _, result in score_in_order(self.model, items, batch_size=self.batch_size)]
        errors = [str(result) if isinstance(result, DataError) else None for result in results]
        rewards = [None if isinstance(result, DataError) else result for result in results]
        return table.append_column(
            pyarrow.field("rewards", pyarrow.list_(pyarrow.float32())),
            [pyarrow.array(rewards, pyarrow.list_(pyarrow.float32()))],
        ).append_column("error", [pyarrow.array(errors, pyarrow.string())])
