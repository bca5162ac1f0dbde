"""The contract of each kind of component as a type: abstract methods are required, all else has a default.

A component derives from its contract (`class MLP(Head, nn.Module)`) or from nothing of ours: `adopt` gives
its class the defaults of the members that it lacks. So nothing has to ask which members a component has.

Shapes: as in `basereward.hookspecs`, whose docstrings say what each member promises.
"""

from __future__ import annotations

from basereward.protocols.adoption import CONTRACTS as CONTRACTS
from basereward.protocols.adoption import adopt as adopt
from basereward.protocols.components import Benchmark as Benchmark
from basereward.protocols.components import Dataset as Dataset
from basereward.protocols.components import Ensembler as Ensembler
from basereward.protocols.components import Writer as Writer
from basereward.protocols.models import Backbone as Backbone
from basereward.protocols.models import Head as Head
from basereward.protocols.models import Loss as Loss
from basereward.protocols.models import Paradigm as Paradigm
from basereward.protocols.scorers import Result as Result
from basereward.protocols.scorers import Scorer as Scorer
