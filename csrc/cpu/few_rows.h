// SPDX-License-Identifier: Apache-2.0
// x W^T for a few rows x in fp32, bound by how fast W is read. Each pair of W's rows is read once from memory and multiplied
// with up to four rows of x at a time; MKL reads W anew for every few of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include <torch/csrc/stable/ops.h>

#include <basereward/cpu/simd.h>

namespace basereward {

constexpr int64_t kFewRows = 12;       // from 16 rows on a GEMM is as fast
constexpr int64_t kWeightsAtOnce = 8;  // rows of W that stay in the first-level cache; a task's sums depend on no thread

namespace few_rows {

// Rows h and h + 1 of W times kCount rows of x; with `is_pair` false, row h alone.
template <int kCount>
BASEREWARD_INLINE void products(const float* x, const float* w, int64_t width, int64_t h, bool is_pair, int64_t num_columns,
                                float* z) {
  const float *a = w + h * width, *b = is_pair ? a + width : a;
  const float *x0 = x, *x1 = x + (kCount > 1 ? width : 0), *x2 = x + (kCount > 2 ? 2 * width : 0),
              *x3 = x + (kCount > 3 ? 3 * width : 0);
  float a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
#pragma omp simd reduction(+ : a0, a1, a2, a3, b0, b1, b2, b3)
  for (int64_t d = 0; d < width; ++d) {
    const float first = a[d], second = b[d];
    a0 += first * x0[d], b0 += second * x0[d];
    if (kCount > 1) a1 += first * x1[d], b1 += second * x1[d];
    if (kCount > 2) a2 += first * x2[d], b2 += second * x2[d];
    if (kCount > 3) a3 += first * x3[d], b3 += second * x3[d];
  }
  const float first[] = {a0, a1, a2, a3}, second[] = {b0, b1, b2, b3};
  for (int64_t n = 0; n < kCount; ++n) {
    z[n * num_columns + h] = first[n];
    if (is_pair) z[n * num_columns + h + 1] = second[n];
  }
}

// z [count, num_columns], columns begin to end.
BASEREWARD_CLONES inline void columns(const float* x, int64_t count, const float* w, int64_t width, int64_t begin, int64_t end,
                                      int64_t num_columns, float* z) {
  for (int64_t n = 0; n < count; n += 4) {
    const int64_t left = std::min<int64_t>(4, count - n);
    for (int64_t h = begin; h < end; h += 2) {
      const bool is_pair = h + 1 < end;
      const float* from = x + n * width;
      float* to = z + n * num_columns;
      switch (left) {
        case 4: products<4>(from, w, width, h, is_pair, num_columns, to); break;
        case 3: products<3>(from, w, width, h, is_pair, num_columns, to); break;
        case 2: products<2>(from, w, width, h, is_pair, num_columns, to); break;
        default: products<1>(from, w, width, h, is_pair, num_columns, to);
      }
    }
  }
}

}  // namespace few_rows

// z = x W^T; all are contiguous.
inline void multiply_few_rows(const float* x, int64_t count, const float* w, int64_t width, int64_t num_columns, float* z) {
  const int64_t num_tasks = (num_columns + kWeightsAtOnce - 1) / kWeightsAtOnce;
  torch::stable::parallel_for(0, num_tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task)
      few_rows::columns(x, count, w, width, task * kWeightsAtOnce, std::min((task + 1) * kWeightsAtOnce, num_columns),
                        num_columns, z);
  });
}

}  // namespace basereward
