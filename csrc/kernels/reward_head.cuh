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

// Sums over responses run in chunks of rows, one block for each chunk and each kNumThreads columns; ColumnsKernel adds the
// chunks' sums up in their order. The chunks depend on the number of responses alone, so two runs are bit-equal.
struct Chunks {
  static constexpr int64_t kFewestRows = 8, kMostChunks = 64;
  int64_t num_rows, rows, count, num_tiles;  // rows of a chunk; chunks; blocks beside each other

  Chunks(int64_t num_responses, int64_t width)
      : num_rows(num_responses),
        rows(num_responses > kFewestRows * kMostChunks ? (num_responses + kMostChunks - 1) / kMostChunks : kFewestRows),
        count(num_responses > 0 ? (num_responses + rows - 1) / rows : 1),
        num_tiles(simt::blocks_of(width)) {}

  int64_t num_blocks() const { return count * num_tiles; }
  BASEREWARD_DEVICE int64_t number() const { return simt::block() / num_tiles; }
  BASEREWARD_DEVICE int64_t column() const { return simt::block() % num_tiles * simt::kNumThreads + simt::thread(); }
  BASEREWARD_DEVICE int64_t begin() const { return number() * rows; }
  BASEREWARD_DEVICE int64_t end() const { return begin() + rows < num_rows ? begin() + rows : num_rows; }
};

// dw_d = sum_n dy_nd x_nd s_n, a chunk's share of it.
template <typename W, typename T>
struct NormWeightKernel {
  static constexpr size_t kArenaBytes = 0;
  const W* grad_normed;  // [N, D]
  const W* rows;         // [N, D]
  const T* scale;        // [N]
  int64_t width;
  Chunks chunks;
  T* partial;  // [chunks, D]

  BASEREWARD_DEVICE void operator()() const {
    const int64_t d = chunks.column();
    if (d >= width) return;
    T sum = 0;
    for (int64_t n = chunks.begin(); n < chunks.end(); ++n)
      sum += static_cast<T>(grad_normed[n * width + d]) * static_cast<T>(rows[n * width + d]) * scale[n];
    partial[chunks.number() * width + d] = sum;
  }
};

// A thread for each column; it adds the chunks' sums up. The columns from `split` on have a tensor of their own.
template <typename W, typename T>
struct ColumnsKernel {
  static constexpr size_t kArenaBytes = 0;
  const T* partial;  // [chunks, width]
  int64_t num_chunks, width, split;
  W* sums;   // [split]
  W* others;  // [width - split] or null

  BASEREWARD_DEVICE void operator()() const {
    const int64_t column = simt::block() * simt::kNumThreads + simt::thread();
    if (column >= width) return;
    T sum = 0;
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) sum += partial[chunk * width + column];
    if (column < split)
      sums[column] = static_cast<W>(sum);
    else if (others != nullptr)
      others[column - split] = static_cast<W>(sum);
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

// dz, and a chunk's share of the sums dw2 and db1; the first block sums db2.
template <Activation kActivation, typename W, typename T>
struct SlopeKernel {
  static constexpr size_t kArenaBytes = simt::kNumWarps * sizeof(double);
  static constexpr int kAtOnce = 4;  // rows that are loaded before one of them is stored
  const T* grad;    // [N]
  const W* pre;     // [N, H]
  const W* bias;    // [H] or null
  const W* weight;  // [H]
  int64_t width;
  Chunks chunks;
  W* grad_pre;     // [N, H]
  T* partial;      // [chunks, 2 H]: of dw2, then of db1
  W* grad_offset;  // []

  BASEREWARD_DEVICE void operator()() const {
    const int64_t h = chunks.column();
    if (h < width) {
      const T shift = bias == nullptr ? T(0) : static_cast<T>(bias[h]), scale = static_cast<T>(weight[h]);
      T sum_weight = 0, sum_bias = 0;
      for (int64_t n = chunks.begin(); n < chunks.end(); n += kAtOnce) {
        T values[kAtOnce], grads[kAtOnce];
        BASEREWARD_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          const bool is_row = n + i < chunks.end();
          values[i] = is_row ? static_cast<T>(pre[(n + i) * width + h]) : T(0);
          grads[i] = is_row ? grad[n + i] : T(0);
        }
        BASEREWARD_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          if (n + i >= chunks.end()) break;
          const Activated<T> activated = activate<kActivation>(values[i] + shift);
          const T slope = grads[i] * scale * activated.slope;
          grad_pre[(n + i) * width + h] = static_cast<W>(slope);
          sum_weight += grads[i] * activated.value;
          sum_bias += slope;
        }
      }
      partial[2 * chunks.number() * width + h] = sum_weight;
      partial[(2 * chunks.number() + 1) * width + h] = sum_bias;
    }
    if (simt::block() != 0) return;
    T sum = 0;
    for (int64_t n = simt::thread(); n < chunks.num_rows; n += simt::kNumThreads) sum += grad[n];
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
