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

// Fills `p.partial` and `p.toward` itself.
template <typename T>
void launch_bt_loss(BTLoss<T> p, int64_t num_blocks, const simt::Plan& plan) {
  std::vector<double> partial(static_cast<size_t>(num_blocks * kNumSums));
  std::vector<T> toward(static_cast<size_t>(2 * p.num_pairs));
  p.partial = partial.data();
  p.toward = toward.data();
  std::vector<int64_t> order(static_cast<size_t>(2 * p.num_pairs));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return p.pairs[a] < p.pairs[b]; });
  plan.launch(PairKernel<T>{p}, num_blocks);
  plan.launch(TotalKernel<T>{p, num_blocks}, 1);
  plan.launch(GradientKernel<T>{p, order.data()}, simt::blocks_of(p.num_rewards));
}

}  // namespace basereward
