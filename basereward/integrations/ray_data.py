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
    from collections.abc import Mapping

    import pyarrow


class RewardStage:
    """Adds the columns `rewards` (list of float32) and `error` (string) to rows of comparisons.

    Each Ray actor loads its own model. Rewards are those of `basereward score`.

    Args:
        model: The directory of a model or an ensemble, which every node sees.
        batch_size: Comparisons a forward pass; the rewards don't depend on it.
        device: `auto` for a GPU where the actor has one.
        precision: Of matrix products, as of `RewardModel.load`.
        root: Directory of the images that rows name, by paths relative to it.
        media_roots: Other directories that images may lie in.
        dataset: Name of the dataset that reads the rows; by default each row's format is recognized.
        options: Its other options.
    """

    def __init__(
        self,
        model: str,
        *,
        batch_size: int = 8,
        device: str = "auto",
        precision: str | None = None,
        root: str = ".",
        media_roots: tuple[str, ...] = (),
        dataset: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        from basereward.data.formats import row_reader
        from basereward.data.media_paths import Media
        from basereward.scoring.loading import load_scorer

        self.model: Any = load_scorer(model, device=device, precision=precision)
        self.batch_size = batch_size
        self.rows = row_reader(dataset, options)
        self.rows.media = Media(Path(root), roots=media_roots, hosts=self.rows.media.hosts)
        self.file = Path(root) / "rows"

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Return the rows with their rewards, in their order.

        Raises:
            ConfigError: When they have a column of that name already.
        """
        import pyarrow

        from basereward.errors import ConfigError, DataError
        from basereward.scoring.ordered import score_in_order

        for name in ("rewards", "error"):
            if name in table.column_names:
                raise ConfigError(f"the rows have a column {name!r} already; drop or rename it before")
        items = [
            self.rows.comparison(row, self.file, line) for line, row in enumerate(table.to_pylist(), start=1)
        ]
        results = [result for _, result in score_in_order(self.model, items, batch_size=self.batch_size)]
        # Without the place: the row itself stands beside the error.
        errors = [
            str(DataError(result.reason, field=result.field)) if isinstance(result, DataError) else None
            for result in results
        ]
        rewards = [None if isinstance(result, DataError) else result for result in results]
        return table.append_column(
            pyarrow.field("rewards", pyarrow.list_(pyarrow.float32())),
            [pyarrow.array(rewards, pyarrow.list_(pyarrow.float32()))],
        ).append_column("error", [pyarrow.array(errors, pyarrow.string())])
