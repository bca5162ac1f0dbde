// SPDX-License-Identifier: Apache-2.0
// The last step of a gated head on N rows of H columns, in two kernels without atomics and without torch:
//     reward_n = sum_h w_h silu(g_nh) u_nh,
//     d/dg_nh = r_n w_h u_nh silu'(g_nh),   d/du_nh = r_n w_h silu(g_nh),   d/dw_h = sum_n r_n silu(g_nh) u_nh,
// with r_n the gradient of reward_n.
#pragma once

#include <basereward/kernels/math.h>
#include <basereward/kernels/reduce.cuh>

namespace basereward_example_op {

namespace simt = basereward::simt;
using basereward::activate, basereward::Activation;

// A block for each row. W is the type of the values, T that of the arithmetic.
template <typename W, typename T>
struct RewardKernel {
  static constexpr size_t kArenaBytes = simt::kNumWarps * sizeof(double);
  const W* gate;    // [N, H]
  const W* up;      // [N, H]
  const W* weight;  // [H]
  int64_t width;
  T* rewards;  // [N]

  BASEREWARD_DEVICE void operator()() const {
    const int64_t row = simt::block() * width;
    T sum = 0;
    for (int64_t h = simt::thread(); h < width; h += simt::kNumThreads) {
      const T gated = activate<Activation::kSilu>(static_cast<T>(gate[row + h])).value;
      sum += static_cast<T>(weight[h]) * gated * static_cast<T>(up[row + h]);
    }
    sum = basereward::reduce_block<basereward::Sum>(sum, T(0), reinterpret_cast<T*>(simt::arena()));
    if (simt::thread() == 0) rewards[simt::block()] = sum;
  }
};

// A thread for each column; it adds over rows in their order.
template <typename W, typename T>
struct GradientKernel {
  static constexpr size_t kArenaBytes = 0;
  const T* grad;    // [N]
  const W* gate;    // [N, H]
  const W* up;      // [N, H]
  const W* weight;  // [H]
  int64_t num_rows, width;
  W* grad_gate;    // [N, H]
  W* grad_up;      // [N, H]
  W* grad_weight;  // [H]

  BASEREWARD_DEVICE void operator()() const {
    const int64_t h = simt::block() * simt::kNumThreads + simt::thread();
    if (h >= width) return;
    const T factor = static_cast<T>(weight[h]);
    T sum = 0;
    for (int64_t n = 0; n < num_rows; ++n) {
      const int64_t place = n * width + h;
      const auto gated = activate<Activation::kSilu>(static_cast<T>(gate[place]));
      const T linear = static_cast<T>(up[place]);
      grad_gate[place] = static_cast<W>(grad[n] * factor * linear * gated.slope);
      grad_up[place] = static_cast<W>(grad[n] * factor * gated.value);
      sum += grad[n] * gated.value * linear;
    }
    grad_weight[h] = static_cast<W>(sum);
  }
};

}  // namespace basereward_example_op
