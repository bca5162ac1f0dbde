// SPDX-License-Identifier: Apache-2.0
// Rows of hidden states on the CPU: where they lie, gathering, normalising and scattering them.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include <basereward/cpu/convert.h>
#include <basereward/tensors.h>

namespace basereward {

// Where the rows of `hidden` lie, [B, L, D] with any strides or [T, D].
struct Rows {
  int64_t per_batch, batch_stride, row_stride, column_stride, width, count;

  explicit Rows(const Tensor& hidden) {
    const bool packed = hidden.dim() == 2;
    per_batch = packed ? hidden.size(0) : hidden.size(1);
    batch_stride = packed ? 0 : hidden.stride(0);
    row_stride = packed ? hidden.stride(0) : hidden.stride(1);
    column_stride = packed ? hidden.stride(1) : hidden.stride(2);
    width = hidden.size(packed ? 1 : 2);
    count = packed ? per_batch : hidden.size(0) * per_batch;
  }

  int64_t offset(int64_t row) const { return row / per_batch * batch_stride + row % per_batch * row_stride; }
};

// rows[n] = hidden[ends[n]] in the type of the weights; every row if there are no ends.
inline void gather(const Tensor& hidden, const int64_t* ends, const Tensor& rows) {
  const Rows layout(hidden);
  with_type(hidden.scalar_type(), [&](auto given) {
    with_type(rows.scalar_type(), [&](auto wanted) {
      using From = decltype(given);
      using To = decltype(wanted);
      const From* from = data<From>(hidden);
      To* to = mutable_data<To>(rows);
      torch::stable::parallel_for(0, rows.size(0), tasks_of(layout.width), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
          const From* row = from + layout.offset(ends == nullptr ? n : ends[n]);
          To* target = to + n * layout.width;
          if (layout.column_stride == 1) {
            load(row, layout.width, target);
            continue;
          }
          for (int64_t d = 0; d < layout.width; ++d) target[d] = static_cast<To>(row[d * layout.column_stride]);
        }
      });
    });
  });
}

// grad_hidden = 0 but for the rows of the ends, each written once.
inline void scatter(const Tensor& grad_rows, const int64_t* ends, const Tensor& grad_hidden) {
  const Rows layout(grad_hidden);
  const int64_t count = grad_rows.size(0);
  std::vector<int64_t> owner(static_cast<size_t>(layout.count), -1);
  for (int64_t n = 0; n < count; ++n) owner[static_cast<size_t>(ends == nullptr ? n : ends[n])] = n;
  with_type(grad_rows.scalar_type(), [&](auto given) {
    with_type(grad_hidden.scalar_type(), [&](auto wanted) {
      using From = decltype(given);
      using To = decltype(wanted);
      torch::stable::parallel_for(0, layout.count, tasks_of(layout.width), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          To* to = mutable_data<To>(grad_hidden) + row * layout.width;
          const int64_t n = owner[static_cast<size_t>(row)];
          if (n < 0)
            std::fill(to, to + layout.width, To(0));
          else
            load(data<From>(grad_rows) + n * layout.width, layout.width, to);
        }
      });
    });
  });
}

// The RMSNorm of rows x, y = x s w with s = (mean x^2 + eps)^-1/2, and its gradient
//     dx = s (dy w - x s^2 mean(dy w x)),  dw = sum_n dy x s.
template <typename W>
class RMSNorm {
 public:
  using T = typename Computed<W>::Type;

  RMSNorm(const Tensor& rows, const Tensor& weight, double eps)
      : count_(rows.size(0)), width_(rows.size(1)), rows_(data<W>(rows)), weight_(width_), scale_(count_) {
    load(data<W>(weight), width_, weight_.data());
    std::vector<T> x(static_cast<size_t>(width_));
    for (int64_t n = 0; n < count_; ++n) {
      load(rows_ + n * width_, width_, x.data());
      T squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t d = 0; d < width_; ++d) squares += x[d] * x[d];
      scale_[n] = T(1) / std::sqrt(squares / static_cast<T>(width_) + static_cast<T>(eps));
    }
  }

  void forward(const Tensor& normed) const {
    W* to = mutable_data<W>(normed);
    for (int64_t n = 0; n < count_; ++n)
      for (int64_t d = 0; d < width_; ++d)
        to[n * width_ + d] = static_cast<W>(static_cast<T>(rows_[n * width_ + d]) * scale_[n] * weight_[d]);
  }

  void backward(const Tensor& grad_normed, const Tensor& grad_rows, const Tensor& grad_weight) const {
    const W* grad = data<W>(grad_normed);
    std::vector<double> sums(static_cast<size_t>(width_));
    for (int64_t n = 0; n < count_; ++n) {
      const W *dy = grad + n * width_, *x = rows_ + n * width_;
      double along = 0;
      for (int64_t d = 0; d < width_; ++d) {
        const T product = static_cast<T>(dy[d]) * static_cast<T>(x[d]);
        along += static_cast<double>(product * weight_[d]);
        sums[d] += static_cast<double>(product * scale_[n]);
      }
      const T pull = static_cast<T>(along / static_cast<double>(width_)) * scale_[n] * scale_[n];
      W* to = mutable_data<W>(grad_rows) + n * width_;
      for (int64_t d = 0; d < width_; ++d)
        to[d] = static_cast<W>(scale_[n] * (static_cast<T>(dy[d]) * weight_[d] - static_cast<T>(x[d]) * pull));
    }
    load(sums.data(), width_, mutable_data<W>(grad_weight));
  }

 private:
  int64_t count_, width_;
  const W* rows_;  // [N, D]
  std::vector<T> weight_, scale_;
};

}  // namespace basereward
