// SPDX-License-Identifier: Apache-2.0
// What a reward head does around its GEMMs, without atomics:
//     x_n = hidden[ends_n], perhaps normalised,  z = x W1^T,  r_n = b2 + sum_h w2_h act(z_nh + b1_h)
//     dz_nh = g_n w2_h act'(z_nh + b1_h),  dw2_h = sum_n g_n act(z_nh + b1_h),  db1_h = sum_n dz_nh,  db2 = sum_n g_n.
// W is the type of weights, rows and pre-activations, T that of the arithmetic.
#pragma once

#include <cmath>

#include <basereward/kernels/math.h>
#include <basereward/kernels/reduce.cuh>

namespace basereward {

// Where the rows of the hidden states lie, [B, L, D] with any strides; packed ones have one B.
struct RowLayout {
  int64_t per_batch, batch_stride, row_stride, column_stride, width;

  BASEREWARD_DEVICE int64_t offset(int64_t row) const {
    return row / per_batch * batch_stride + row % per_batch * row_stride;
  }
};

// A block for each response. The row of an index that is none is NaN: an error could only be told after waiting for the device.
template <typename From, typename W>
struct GatherKernel {
  static constexpr size_t kArenaBytes = 0;
  const From* hidden;
  const int64_t* ends;  // [N] or null for every row
  int64_t num_rows;
  RowLayout layout;
  W* rows;  // [N, D]

  BASEREWARD_DEVICE void operator()() const {
    const int64_t n = simt::block(), row = ends == nullptr ? n : ends[n];
    if (row < 0 || row >= num_rows) {
      for (int64_t d = simt::thread(); d < layout.width; d += simt::kNumThreads)
        rows[n * layout.width + d] = static_cast<W>(NAN);
      return;
    }
    const From* from = hidden + layout.offset(row);
    for (int64_t d = simt::thread(); d < layout.width; d += simt::kNumThreads)
      rows[n * layout.width + d] = static_cast<W>(from[d * layout.column_stride]);
  }
};

// The RMSNorm of rows x, y = x s w with s = (mean x^2 + eps)^-1/2. A block for each row.
template <typename W, typename T>
struct NormKernel {
  static constexpr size_t kArenaBytes = (simt::kNumWarps + 1) * sizeof(double);
  const W* rows;    // [N, D]
  const W* weight;  // [D]
  int64_t width;
  T eps;
  W* normed;  // [N, D]
  T* scale;   // [N] s

  BASEREWARD_DEVICE void operator()() const {
    using std::sqrt;
    const W* x = rows + simt::block() * width;
    T* room = reinterpret_cast<T*>(simt::arena());
    T sum = 0;
    for (int64_t d = simt::thread(); d < width; d += simt::kNumThreads) sum += static_cast<T>(x[d]) * static_cast<T>(x[d]);
    sum = reduce_block<Sum>(sum, T(0), room);
    if (simt::thread() == 0) room[0] = scale[simt::block()] = T(1) / sqrt(sum / static_cast<T>(width) + eps);
    simt::barrier();
    for (int64_t d = simt::thread(); d < width; d += simt::kNumThreads)
      normed[simt::block() * width + d] = static_cast<W>(static_cast<T>(x[d]) * room[0] * static_cast<T>(weight[d]));
  }
};

// dx = s (dy w - x s^2 mean(dy w x)). A block for each row.
template <typename W, typename T>
struct NormRowsKernel {
  static constexpr size_t kArenaBytes = (simt::kNumWarps + 1) * sizeof(double);
  const W* grad_normed;  // [N, D]
  const W* rows;         // [N, D]
  const W* weight;       // [D]
  const T* scale;        // [N]
  int64_t width;
  W* grad_rows;  // [N, D]

  BASEREWARD_DEVICE void operator()() const {
    const int64_t start = simt::block() * width;
    const T s = scale[simt::block()];
    T* room = reinterpret_cast<T*>(simt::arena());
    T sum = 0;
    for (int64_t d = simt::thread(); d < width; d += simt::kNumThreads)
      sum += static_cast<T>(grad_normed[start + d]) * static_cast<T>(weight[d]) * static_cast<T>(rows[start + d]);
    sum = reduce_block<Sum>(sum, T(0), room);
    if (simt::thread() == 0) room[0] = sum / static_cast<T>(width) * s * s;
    simt::barrier();
    for (int64_t d = simt::thread(); d < width; d += simt::kNumThreads)
      grad_rows[start + d] = static_cast<W>(s * (static_cast<T>(grad_normed[start + d]) * static_cast<T>(weight[d]) -
                                                 static_cast<T>(rows[start + d]) * room[0]));
  }
};

// dw_d = sum_n dy_nd x_nd s_n. A thread for each column; it adds over responses in their order.
template <typename W, typename T>
struct NormWeightKernel {
  static constexpr size_t kArenaBytes = 0;
  const W* grad_normed;  // [N, D]
  const W* rows;         // [N, D]
  const T* scale;        // [N]
  int64_t num_responses, width;
  W* grad_weight;  // [D]

  BASEREWARD_DEVICE void operator()() const {
    const int64_t d = simt::block() * simt::kNumThreads + simt::thread();
    if (d >= width) return;
    T sum = 0;
    for (int64_t n = 0; n < num_responses; ++n)
      sum += static_cast<T>(grad_normed[n * width + d]) * static_cast<T>(rows[n * width + d]) * scale[n];
    grad_weight[d] = static_cast<W>(sum);
  }
};

// A block for each response.
template <Activation kActivation, typename W, typename T>
struct RewardKernel {
  static constexpr size_t kArenaBytes = simt::kNumWarps * sizeof(double);
  const W* pre;   // [N, H]
  const W* bias;  // [H] or null
  const W* weight;  // [H]
  const W* offset;  // [] or null
  int64_t width;  // H
  T* rewards;     // [N]

  BASEREWARD_DEVICE void operator()() const {
    const int64_t n = simt::block();
    T sum = 0;
    for (int64_t h = simt::thread(); h < width; h += simt::kNumThreads) {
      const T z = static_cast<T>(pre[n * width + h]) + (bias == nullptr ? T(0) : static_cast<T>(bias[h]));
      sum += static_cast<T>(weight[h]) * activate<kActivation>(z).value;
    }
    sum = reduce_block<Sum>(sum, T(0), reinterpret_cast<T*>(simt::arena()));
    if (simt::thread() == 0) rewards[n] = sum + (offset == nullptr ? T(0) : static_cast<T>(*offset));
  }
};

// A thread for each column; it adds over responses in their order.
template <Activation kActivation, typename W, typename T>
struct SlopeKernel {
  static constexpr size_t kArenaBytes = simt::kNumWarps * sizeof(double);
  const T* grad;    // [N]
  const W* pre;     // [N, H]
  const W* bias;    // [H] or null
  const W* weight;  // [H]
  int64_t num_responses, width;
  W* grad_pre;     // [N, H]
  W* grad_bias;    // [H] or null
  W* grad_weight;  // [H]
  W* grad_offset;  // []

  BASEREWARD_DEVICE void operator()() const {
    const int64_t h = simt::block() * simt::kNumThreads + simt::thread();
    if (h < width) {
      const T shift = bias == nullptr ? T(0) : static_cast<T>(bias[h]), scale = static_cast<T>(weight[h]);
      T sum_weight = 0, sum_bias = 0;
      for (int64_t n = 0; n < num_responses; ++n) {
        const Activated<T> activated = activate<kActivation>(static_cast<T>(pre[n * width + h]) + shift);
        const T slope = grad[n] * scale * activated.slope;
        grad_pre[n * width + h] = static_cast<W>(slope);
        sum_weight += grad[n] * activated.value;
        sum_bias += slope;
      }
      grad_weight[h] = static_cast<W>(sum_weight);
      if (grad_bias != nullptr) grad_bias[h] = static_cast<W>(sum_bias);
    }
    if (simt::block() != 0) return;
    T sum = 0;
    for (int64_t n = simt::thread(); n < num_responses; n += simt::kNumThreads) sum += grad[n];
    sum = reduce_block<Sum>(sum, T(0), reinterpret_cast<T*>(simt::arena()));
    if (simt::thread() == 0) *grad_offset = static_cast<W>(sum);
  }
};

// A block for each row of the hidden states: the gradient of the response that ends there, or zeros. Each response ends in a
// row of its own, so at most one thread finds it.
template <typename W, typename To>
struct ScatterKernel {
  static constexpr size_t kArenaBytes = sizeof(double);
  const W* grad_rows;   // [N, D]
  const int64_t* ends;  // [N] or null for every row
  int64_t num_responses, width;
  To* grad_hidden;  // [rows, D]

  BASEREWARD_DEVICE void operator()() const {
    const int64_t row = simt::block();
    int64_t* owner = reinterpret_cast<int64_t*>(simt::arena());
    if (simt::thread() == 0) *owner = ends == nullptr ? row : -1;
    simt::barrier();
    for (int64_t n = simt::thread(); ends != nullptr && n < num_responses; n += simt::kNumThreads)
      if (ends[n] == row) *owner = n;
    simt::barrier();
    const int64_t n = *owner;
    for (int64_t d = simt::thread(); d < width; d += simt::kNumThreads)
      grad_hidden[row * width + d] = n < 0 ? static_cast<To>(0.0f) : static_cast<To>(grad_rows[n * width + d]);
  }
};

}  // namespace basereward
