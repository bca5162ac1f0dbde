// SPDX-License-Identifier: Apache-2.0
// What the op refuses, on the CPU and on a device.
#pragma once

#include <basereward/check.h>

namespace basereward_example_op {

using basereward::ScalarType, basereward::Tensor;

// The type of the rewards and of the arithmetic.
inline ScalarType computed_in(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_gated_reward(const Tensor& gate, const Tensor& up, const Tensor& weight) {
  STD_TORCH_CHECK(gate.dim() == 2, "gate has ", gate.dim(), " dimensions, not 2");
  basereward::check_tensor("up", up, gate, gate.scalar_type(), gate.size(0), gate.size(1));
  basereward::check_tensor("weight", weight, gate, gate.scalar_type(), gate.size(1));
}

inline void check_gradient(const Tensor& grad, const Tensor& gate) {
  basereward::check_tensor("grad", grad, gate, computed_in(gate.scalar_type()), gate.size(0));
}

}  // namespace basereward_example_op
