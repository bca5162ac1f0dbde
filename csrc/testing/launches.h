// SPDX-License-Identifier: Apache-2.0
// The kernels' launches on the shim, as cuda/*.cu does them on a device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/bt_loss.cuh"
#include "kernels/reward_head.cuh"

namespace basereward {

// Fills `p.partial` and `p.toward` itself; `sorts` as for many pairs.
template <typename T>
void launch_bt_loss(BTLoss<T> p, int64_t num_blocks, bool sorts, const simt::Plan& plan) {
  std::vector<double> partial(static_cast<size_t>(num_blocks * kNumSums));
  std::vector<T> toward(static_cast<size_t>(2 * p.num_pairs));
  p.partial = partial.data();
  p.toward = toward.data();
  plan.launch(PairKernel<T>{p}, num_blocks);
  plan.launch(TotalKernel<T>{p, num_blocks}, 1);
  if (!sorts) return plan.launch(ScanKernel<T>{p}, p.num_rewards);
  std::vector<int64_t> order(static_cast<size_t>(2 * p.num_pairs));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return p.pairs[a] < p.pairs[b]; });
  plan.launch(GradientKernel<T>{p, order.data()}, simt::blocks_of(p.num_rewards));
}

// What of the head's backward comes before its products.
template <Activation kActivation, typename W, typename T>
void launch_slope(const T* grad, const W* pre, const W* bias, const W* weight, int64_t num_responses, int64_t width, W* grad_pre,
                  W* grad_bias, W* grad_weight, W* grad_offset, const simt::Plan& plan) {
  const Chunks chunks(num_responses, width);
  std::vector<T> partial(static_cast<size_t>(chunks.count * 2 * width));
  plan.launch(SlopeKernel<kActivation, W, T>{grad, pre, bias, weight, width, chunks, grad_pre, partial.data(), grad_offset},
              chunks.num_blocks());
  plan.launch(ColumnsKernel<W, T>{partial.data(), chunks.count, 2 * width, width, grad_weight, grad_bias},
              simt::blocks_of(2 * width));
}

template <typename W, typename T>
void launch_norm_weight(const W* grad_normed, const W* rows, const T* scale, int64_t num_responses, int64_t width,
                        W* grad_weight, const simt::Plan& plan) {
  const Chunks chunks(num_responses, width);
  std::vector<T> partial(static_cast<size_t>(chunks.count * width));
  plan.launch(NormWeightKernel<W, T>{grad_normed, rows, scale, width, chunks, partial.data()}, chunks.num_blocks());
  plan.launch(ColumnsKernel<W, T>{partial.data(), chunks.count, width, width, grad_weight, nullptr}, simt::blocks_of(width));
}

}  // namespace basereward
