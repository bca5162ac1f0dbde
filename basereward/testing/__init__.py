"""Conformance: every promise that the hooks' docstrings make of a component, as a test of yours.

    from basereward.testing import conformance

    @conformance("my-plugin")
    def test_conformance(check):
        check()

gives one test for each component and promise, such as `loss/focal:is-finite-far-out`. Needs pytest,
the extra `test`.

For native ops `simt` runs CUDA kernels on the CPU, `nvcc` says what they take of a GPU, and `timing` times
them beside what they replace.
"""

from basereward.testing.kit import Check, checks, conformance
from basereward.testing.subject import Failed, Subject

__all__ = ["Check", "Failed", "Subject", "checks", "conformance"]
