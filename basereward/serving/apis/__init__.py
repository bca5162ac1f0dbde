"""The HTTP APIs of the server, one file each; all parse into `ScoringRequest` and write `ScoringResponse`."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from basereward.serving.apis.base import Api

APIS: Final = {
    "rewards": "basereward.serving.apis.native:Native",
    "openrlhf": "basereward.serving.apis.openrlhf:OpenRLHF",
    "classify": "basereward.serving.apis.classify:Classify",
    "pooling": "basereward.serving.apis.pooling:Pooling",
    "score": "basereward.serving.apis.score:Scores",
    "rerank": "basereward.serving.apis.rerank:Rerank",
    "embeddings": "basereward.serving.apis.embeddings:Embeddings",
    "predict": "basereward.serving.apis.predict:Predict",
    "llama-factory": "basereward.serving.apis.llama_factory:LlamaFactory",
    "slime": "basereward.serving.apis.slime:Slime",
    "systemone": "basereward.serving.apis.systemone:SystemOne",
    "decisions": "basereward.serving.apis.decisions:Decisions",
}
"""The class of each API."""


def apis() -> list[Api]:
    """Load every API."""
    return [resolve_name(path)() for path in APIS.values()]
