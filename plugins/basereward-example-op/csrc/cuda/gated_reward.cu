// SPDX-License-Identifier: Apache-2.0
// Launches of the kernels on a device, in a library of their own because it needs torch's CUDA.

#include <tuple>

#include <torch/csrc/stable/library.h>

#include <basereward/cuda/launch.h>

#include "arguments.h"
#include "gated_reward.cuh"

namespace basereward_example_op {
namespace {

using namespace basereward;

Tensor gated_reward(Tensor gate, Tensor up, Tensor weight) {
  check_gated_reward(gate, up, weight);
  gate = as_contiguous(gate), up = as_contiguous(up), weight = as_contiguous(weight);
  const int64_t num_rows = gate.size(0), width = gate.size(1);
  const Tensor rewards = torch::stable::new_empty(gate, {num_rows}, computed_in(gate.scalar_type()));
  with_type(gate.scalar_type(), [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    launch(RewardKernel<W, T>{data<W>(gate), data<W>(up), data<W>(weight), width, mutable_data<T>(rewards)}, num_rows, gate);
  });
  return rewards;
}

std::tuple<Tensor, Tensor, Tensor> gated_reward_backward(Tensor grad, Tensor gate, Tensor up, Tensor weight) {
  check_gated_reward(gate, up, weight);
  check_gradient(grad, gate);
  grad = as_contiguous(grad), gate = as_contiguous(gate), up = as_contiguous(up), weight = as_contiguous(weight);
  const int64_t num_rows = gate.size(0), width = gate.size(1);
  const Tensor grad_gate = torch::stable::new_empty(gate, {num_rows, width});
  const Tensor grad_up = torch::stable::new_empty(gate, {num_rows, width});
  const Tensor grad_weight = torch::stable::new_empty(gate, {width});
  with_type(gate.scalar_type(), [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    launch(GradientKernel<W, T>{data<T>(grad), data<W>(gate), data<W>(up), data<W>(weight), num_rows, width,
                                mutable_data<W>(grad_gate), mutable_data<W>(grad_up), mutable_data<W>(grad_weight)},
           simt::blocks_of(width), gate);
  });
  return {grad_gate, grad_up, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(basereward_example_op, CUDA, library) {
  library.impl("gated_reward", TORCH_BOX(&gated_reward));
  library.impl("gated_reward_backward", TORCH_BOX(&gated_reward_backward));
}

}  // namespace basereward_example_op
