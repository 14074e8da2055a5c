"""A law as one PyTensor operation, for laws with a quantity that has no closed form."""

# PyTensor re-exports its names without saying so.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from lawkit.laws._function import Inputs
from lawkit.laws._law import Law


class LawOp(Op):
    """Losses (n, m) and their exact derivatives (n, m, P) at z (P,).

    Both come from one solution of the implicit equation. The gradient of the losses is the product with the second
    output, so that value and gradient together cost one evaluation; there are no second derivatives.

    Parameters
    ----------
    law
        Any law.
    inputs
        The runs, with `own` (1, m).
    """

    __props__ = ()

    def __init__(self, law: Law, inputs: Inputs):
        self.law, self.inputs = law, inputs

    # An operation on these very runs: no other instance is equal to it.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def make_node(self, z: Any) -> Apply:
        """The node of losses and slopes of a vector of parameters."""
        z = pt.as_tensor_variable(z)
        n, m = len(self.inputs.weights), self.inputs.own.shape[1]
        size = self.law.n_parameters(self.inputs.weights.shape[1])
        return Apply(
            self,
            [z],
            [pt.tensor(dtype="float64", shape=(n, m)), pt.tensor(dtype="float64", shape=(n, m, size))],
        )

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        """Losses (n, m) and slopes (n, m, P)."""
        value, slope = self.law.function.jacobian(np.asarray(inputs[0], float)[None], self.inputs)
        output_storage[0][0] = np.ascontiguousarray(value[0])
        output_storage[1][0] = np.ascontiguousarray(slope[0])

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """The vector-Jacobian product of the losses."""
        weight, curvature = cotangents
        if not isinstance(curvature.type, DisconnectedType):
            raise NotImplementedError("second derivatives of a law with an implicit quantity")
        return [(weight[:, :, None] * outputs[1]).sum((0, 1))]

    # PyTensor before 3 asks for it under this name.
    L_op = pullback  # type: ignore[assignment]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Both outputs depend on the input."""
        return [[True, True]]
