// SPDX-License-Identifier: Apache-2.0
// The ops that are made of others, for the CPU and for a device, whose libraries each have these functions of their own.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include <basereward/tensors.h>

namespace basereward {

// cpu/bt_loss.cpp, cuda/bt_loss.cu
std::tuple<Tensor, Tensor, Tensor> batched_bt_loss(Tensor rewards, Tensor pairs, std::optional<Tensor> tie,
                                                   std::optional<Tensor> margin, std::optional<Tensor> weight,
                                                   std::optional<Tensor> lengths, double label_smoothing,
                                                   double zero_coefficient, double tie_weight);

// cpu/reward_head.cpp, cuda/reward_head.cu
std::tuple<Tensor, Tensor, Tensor> reward_head(Tensor hidden, std::optional<Tensor> ends, std::optional<Tensor> norm,
                                               double eps, std::optional<Tensor> w1, std::optional<Tensor> b1, Tensor w2,
                                               std::optional<Tensor> b2, std::string activation);

// The loss of a head's rewards, and what the head's backward needs: the gradient of the rewards, the rows and the
// pre-activations.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> reward_loss(
    Tensor hidden, std::optional<Tensor> ends, std::optional<Tensor> norm, double eps, std::optional<Tensor> w1,
    std::optional<Tensor> b1, Tensor w2, std::optional<Tensor> b2, std::string activation, Tensor pairs,
    std::optional<Tensor> tie, std::optional<Tensor> margin, std::optional<Tensor> weight, std::optional<Tensor> lengths,
    double label_smoothing, double zero_coefficient, double tie_weight) {
  Tensor rewards, rows, pre, loss, grad, statistics;
  std::tie(rewards, rows, pre) = reward_head(hidden, ends, norm, eps, w1, b1, w2, b2, activation);
  std::tie(loss, grad, statistics) =
      batched_bt_loss(rewards, pairs, tie, margin, weight, lengths, label_smoothing, zero_coefficient, tie_weight);
  return {loss, statistics, rewards, grad, rows, pre};
}

}  // namespace basereward
