"""The APIs that the server speaks, one file each; all read into calls and write out of answers."""

from __future__ import annotations

from basereward.serving.apis.base import Dialect
from basereward.serving.apis.classify import Classify
from basereward.serving.apis.embeddings import Embeddings
from basereward.serving.apis.llama_factory import LlamaFactory
from basereward.serving.apis.native import Native
from basereward.serving.apis.openrlhf import OpenRLHF
from basereward.serving.apis.pooling import Pooling
from basereward.serving.apis.predict import Predict
from basereward.serving.apis.rerank import Rerank
from basereward.serving.apis.score import Scores
from basereward.serving.apis.slime import Slime


def dialects() -> list[Dialect]:
    """Return every API."""
    return [
        Native(),
        OpenRLHF(),
        Classify(),
        Pooling(),
        Scores(),
        Rerank(),
        Embeddings(),
        Predict(),
        LlamaFactory(),
        Slime(),
    ]
