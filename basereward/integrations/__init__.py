"""BaseReward inside the pipelines of other projects, a module each; it needs that project's package."""
