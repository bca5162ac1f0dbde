// SPDX-License-Identifier: Apache-2.0
// The schemas of all ops. Implementations register themselves: cpu/ in this library, cuda/ in its own.

#include <basereward/module.h>

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(basereward, library) {
  library.def(
      "batched_bt_loss(Tensor rewards, Tensor pairs, Tensor? tie, Tensor? margin, Tensor? weight, Tensor? lengths, "
      "float label_smoothing, float zero_coefficient, float tie_weight) -> (Tensor loss, Tensor grad, Tensor statistics)");
  // The same on the CPU, for calls that nothing traces; `differentiable` ties the loss to the rewards, so that its gradient
  // needs no rule in Python.
  library.def(
      "bt_loss_on_cpu(Tensor rewards, Tensor pairs, Tensor? tie, Tensor? margin, Tensor? weight, Tensor? lengths, "
      "float label_smoothing, float zero_coefficient, float tie_weight, bool differentiable) -> (Tensor loss, Tensor statistics)");
  library.def(
      "pairwise_reward_head(Tensor hidden, Tensor? ends, Tensor? norm, float norm_eps, Tensor? w1, Tensor? b1, Tensor w2, "
      "Tensor? b2, str activation) -> (Tensor rewards, Tensor rows, Tensor pre)");
  // `like` is an empty tensor of the dtype of the hidden states, which the backward doesn't keep alive.
  library.def(
      "pairwise_reward_head_backward(Tensor grad, Tensor rows, Tensor pre, Tensor? ends, Tensor? norm, float norm_eps, "
      "Tensor? w1, Tensor? b1, Tensor w2, Tensor like, SymInt[] shape, str activation, bool needs_hidden, "
      "bool needs_weights) -> (Tensor hidden, Tensor norm, Tensor w1, Tensor b1, Tensor w2, Tensor b2)");
  // Both in one; its backward is the head's.
  library.def(
      "pairwise_reward_loss(Tensor hidden, Tensor? ends, Tensor? norm, float norm_eps, Tensor? w1, Tensor? b1, Tensor w2, "
      "Tensor? b2, str activation, Tensor pairs, Tensor? tie, Tensor? margin, Tensor? weight, Tensor? lengths, "
      "float label_smoothing, float zero_coefficient, float tie_weight) -> (Tensor loss, Tensor statistics, Tensor rewards, "
      "Tensor grad, Tensor rows, Tensor pre)");
}

BASEREWARD_MODULE(_C)
