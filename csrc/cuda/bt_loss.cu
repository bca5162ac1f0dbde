// SPDX-License-Identifier: Apache-2.0
// Launches of the Bradley-Terry loss. Values are not checked here, since that would wait for
// the device: an index that is out of range gives NaN.

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include <torch/csrc/stable/library.h>

#include <basereward/cuda/launch.h>

#include "arguments.h"
#include "kernels/bt_loss.cuh"
#include "ops.h"

namespace basereward {
namespace {

constexpr int64_t kMostBlocks = 256;  // rows of partial sums, which one block adds up
constexpr int64_t kMostLookups = int64_t{1} << 23;  // of a response in a pair: more of them take longer than sorting

// The places in a flat tensor of responses, stably sorted by response.
Tensor sorted_places(const Tensor& flat) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(flat), torch::stable::detail::from(true),
                                    torch::stable::detail::from(static_cast<int64_t>(0)), torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::argsort", "stable", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> batched_bt_loss(Tensor rewards, Tensor pairs, std::optional<Tensor> tie,
                                                   std::optional<Tensor> margin, std::optional<Tensor> weight,
                                                   std::optional<Tensor> lengths, double label_smoothing,
                                                   double zero_coefficient, double tie_weight) {
  check_bt_loss(rewards, pairs, tie, margin, weight, lengths);
  const bool is_double = rewards.scalar_type() == ScalarType::Double;
  rewards = as_contiguous(rewards);
  pairs = as_contiguous(pairs);
  tie = as_contiguous(tie);
  margin = as_contiguous(margin);
  weight = as_contiguous(weight);
  lengths = as_contiguous(lengths);
  const int64_t num_rewards = rewards.size(0), num_pairs = pairs.size(0);
  const Tensor loss = torch::stable::new_empty(rewards, {});
  const Tensor grad = torch::stable::new_empty(rewards, {num_rewards});
  const Tensor statistics = torch::stable::new_empty(rewards, {kNumStatistics}, ScalarType::Double);
  const int64_t num_blocks = std::min(std::max<int64_t>(1, simt::blocks_of(num_pairs)), kMostBlocks);
  const Tensor partial = torch::stable::new_empty(rewards, {num_blocks, kNumSums}, ScalarType::Double);
  const Tensor toward = torch::stable::new_empty(rewards, {num_pairs, 2});
  const auto call = [&](auto kind) {
    using T = decltype(kind);
    const BTLoss<T> p{data<T>(rewards),
                      data<int64_t>(pairs),
                      data<bool>(tie),
                      data<T>(margin),
                      data<T>(weight),
                      data<int64_t>(lengths),
                      num_rewards,
                      num_pairs,
                      static_cast<T>(label_smoothing),
                      static_cast<T>(zero_coefficient),
                      static_cast<T>(tie_weight),
                      mutable_data<double>(partial),
                      mutable_data<T>(toward),
                      mutable_data<T>(loss),
                      mutable_data<T>(grad),
                      mutable_data<double>(statistics)};
    launch(PairKernel<T>{p}, num_blocks, rewards);
    launch(TotalKernel<T>{p, num_blocks}, 1, rewards);
    if (num_rewards * num_pairs <= kMostLookups) return launch(ScanKernel<T>{p}, num_rewards, rewards);
    const Tensor order = sorted_places(torch::stable::view(pairs, {2 * num_pairs}));
    launch(GradientKernel<T>{p, data<int64_t>(order)}, simt::blocks_of(num_rewards), rewards);
  };
  is_double ? call(double()) : call(float());
  return {loss, grad, statistics};
}

STABLE_TORCH_LIBRARY_IMPL(basereward, CUDA, library) { library.impl("batched_bt_loss", TORCH_BOX(&batched_bt_loss)); }

}  // namespace basereward
