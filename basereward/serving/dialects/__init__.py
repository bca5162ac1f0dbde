"""The APIs that the server speaks, one file each; all read into calls and write out of answers."""

from __future__ import annotations

from basereward.serving.dialects.classify import Classify
from basereward.serving.dialects.dialect import Dialect
from basereward.serving.dialects.embeddings import Embeddings
from basereward.serving.dialects.llama_factory import LlamaFactory
from basereward.serving.dialects.native import Native
from basereward.serving.dialects.openrlhf import OpenRLHF
from basereward.serving.dialects.pooling import Pooling
from basereward.serving.dialects.predict import Predict
from basereward.serving.dialects.rerank import Rerank
from basereward.serving.dialects.score import Scores
from basereward.serving.dialects.slime import Slime


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
