// SPDX-License-Identifier: Apache-2.0
// Launches of the reward head. Values are not checked here, since that would wait for the device: an
// index that is out of range gives NaN.

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include <basereward/cuda/launch.h>

#include "arguments.h"
#include "kernels/reward_head.cuh"
#include "ops.h"

namespace basereward {
namespace {

template <typename Body>
void with_activation(const std::string& name, const Body& body) {
  if (name == "tanh") return body(std::integral_constant<Activation, Activation::kTanh>());
  if (name == "silu") return body(std::integral_constant<Activation, Activation::kSilu>());
  if (name == "relu") return body(std::integral_constant<Activation, Activation::kRelu>());
  STD_TORCH_CHECK(name == "none", "activation is ", name, "; allowed: none, tanh, silu, relu");
  body(std::integral_constant<Activation, Activation::kNone>());
}

RowLayout layout_of(const Tensor& hidden) {
  if (hidden.dim() == 2) return {hidden.size(0), 0, hidden.stride(0), hidden.stride(1), hidden.size(1)};
  return {hidden.size(1), hidden.stride(0), hidden.stride(1), hidden.stride(2), hidden.size(2)};
}

// Rows after the norm, and each row's scale; the rows themselves without a norm.
std::tuple<Tensor, Tensor> normalised(const Tensor& rows, const std::optional<Tensor>& norm, double eps) {
  if (!norm) return {rows, torch::stable::new_empty(rows, {0})};
  const int64_t count = rows.size(0), width = rows.size(1);
  const bool is_double = rows.scalar_type() == ScalarType::Double;
  const Tensor normed = torch::stable::new_empty(rows, {count, width});
  const Tensor scale = torch::stable::new_empty(rows, {count}, is_double ? ScalarType::Double : ScalarType::Float);
  with_type(rows.scalar_type(), [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    launch(NormKernel<W, T>{data<W>(rows), data<W>(*norm), width, static_cast<T>(eps), mutable_data<W>(normed),
                            mutable_data<T>(scale)},
           count, rows);
  });
  return {normed, scale};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> reward_head(Tensor hidden, std::optional<Tensor> ends, std::optional<Tensor> norm,
                                               double eps, std::optional<Tensor> w1, std::optional<Tensor> b1, Tensor w2,
                                               std::optional<Tensor> b2, std::string activation) {
  check_reward_head(hidden, ends, norm, w1, b1, w2, b2);
  const RowLayout layout = layout_of(hidden);
  ends = as_contiguous(ends);
  norm = as_contiguous(norm);
  b1 = as_contiguous(b1);
  w2 = as_contiguous(w2);
  const int64_t num_rows = hidden.numel() / std::max<int64_t>(1, layout.width);
  const int64_t count = ends ? ends->size(0) : num_rows;
  const ScalarType dtype = w2.scalar_type();
  const Tensor rows = torch::stable::new_empty(w2, {count, layout.width});
  with_type(hidden.scalar_type(), [&](auto given) {
    with_type(dtype, [&](auto wanted) {
      using From = decltype(given);
      using W = decltype(wanted);
      launch(GatherKernel<From, W>{data<From>(hidden), data<int64_t>(ends), num_rows, layout, mutable_data<W>(rows)}, count,
             hidden);
    });
  });
  Tensor normed, scale;  // no structured binding: C++17 captures none in a lambda
  std::tie(normed, scale) = normalised(rows, norm, eps);
  const Tensor pre =
      w1 ? torch::stable::matmul(normed, torch::stable::transpose(*w1, 0, 1)) : torch::stable::new_empty(w2, {0});
  const Tensor z = w1 ? pre : normed;
  const Tensor rewards =
      torch::stable::new_empty(w2, {count}, dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float);
  with_type(dtype, [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    with_activation(activation, [&](auto chosen) {
      launch(RewardKernel<decltype(chosen)::value, W, T>{data<W>(z), data<W>(b1), data<W>(w2), data<W>(b2), w2.numel(),
                                                         mutable_data<T>(rewards)},
             count, hidden);
    });
  });
  return {rewards, rows, pre};
}

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> reward_head_backward(
    Tensor grad, Tensor rows, Tensor pre, std::optional<Tensor> ends, std::optional<Tensor> norm, double eps,
    std::optional<Tensor> w1, std::optional<Tensor> b1, Tensor w2, Tensor like, std::vector<int64_t> shape,
    std::string activation, bool needs_hidden, bool needs_weights) {
  check_reward_head_backward(grad, rows, pre, ends, norm, w1, b1, w2, shape);
  grad = as_contiguous(grad);
  rows = as_contiguous(rows);
  ends = as_contiguous(ends);
  norm = as_contiguous(norm);
  b1 = as_contiguous(b1);
  w2 = as_contiguous(w2);
  const int64_t count = rows.size(0), width = rows.size(1), num_columns = w2.numel();
  const ScalarType dtype = w2.scalar_type(), wide = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  Tensor normed, scale;  // no structured binding: C++17 captures none in a lambda
  std::tie(normed, scale) = normalised(rows, norm, eps);
  const Tensor z = as_contiguous(w1 ? pre : normed);
  const Tensor grad_z = torch::stable::new_empty(w2, {count, num_columns});
  const Tensor grad_w2 = torch::stable::new_empty(w2, w2.sizes());
  const Tensor grad_b1 = torch::stable::new_empty(w2, {b1 ? num_columns : 0});
  const Tensor grad_b2 = torch::stable::new_empty(w2, {1});
  const Tensor grad_norm = torch::stable::new_empty(w2, {norm ? width : 0});
  with_type(dtype, [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    const Chunks chunks(count, num_columns);
    const Tensor partial = torch::stable::new_empty(w2, {chunks.count, 2 * num_columns}, wide);
    with_activation(activation, [&](auto chosen) {
      launch(SlopeKernel<decltype(chosen)::value, W, T>{data<T>(grad), data<W>(z), data<W>(b1), data<W>(w2), num_columns, chunks,
                                                        mutable_data<W>(grad_z), mutable_data<T>(partial),
                                                        mutable_data<W>(grad_b2)},
             chunks.num_blocks(), w2);
    });
    launch(ColumnsKernel<W, T>{data<T>(partial), chunks.count, 2 * num_columns, num_columns, mutable_data<W>(grad_w2),
                               b1 ? mutable_data<W>(grad_b1) : nullptr},
           simt::blocks_of(2 * num_columns), w2);
  });
  const Tensor grad_w1 = w1 && needs_weights ? torch::stable::matmul(torch::stable::transpose(grad_z, 0, 1), normed)
                                             : torch::stable::new_empty(w2, {0});
  Tensor grad_hidden = torch::stable::new_empty(like, {0});
  if (!needs_hidden && !norm) return {grad_hidden, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2};
  Tensor grad_rows = w1 ? as_contiguous(torch::stable::matmul(grad_z, *w1)) : grad_z;
  if (norm) {
    const Tensor grad_normed = grad_rows;
    grad_rows = torch::stable::new_empty(w2, {count, width});
    with_type(dtype, [&](auto kind) {
      using W = decltype(kind);
      using T = typename Computed<W>::Type;
      launch(NormRowsKernel<W, T>{data<W>(grad_normed), data<W>(rows), data<W>(*norm), data<T>(scale), width,
                                  mutable_data<W>(grad_rows)},
             count, w2);
      const Chunks chunks(count, width);
      const Tensor partial = torch::stable::new_empty(w2, {chunks.count, width}, wide);
      launch(NormWeightKernel<W, T>{data<W>(grad_normed), data<W>(rows), data<T>(scale), width, chunks,
                                    mutable_data<T>(partial)},
             chunks.num_blocks(), w2);
      launch(ColumnsKernel<W, T>{data<T>(partial), chunks.count, width, width, mutable_data<W>(grad_norm), nullptr},
             simt::blocks_of(width), w2);
    });
  }
  if (!needs_hidden) return {grad_hidden, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2};
  if (!ends && like.scalar_type() == dtype) {
    grad_hidden = torch::stable::view(grad_rows, {shape.data(), shape.size()});
    return {grad_hidden, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2};
  }
  grad_hidden = torch::stable::new_empty(like, {shape.data(), shape.size()});
  const int64_t num_rows = shape.size() == 2 ? shape[0] : shape[0] * shape[1];
  with_type(dtype, [&](auto given) {
    with_type(like.scalar_type(), [&](auto wanted) {
      using W = decltype(given);
      using To = decltype(wanted);
      launch(ScatterKernel<W, To>{data<W>(grad_rows), data<int64_t>(ends), count, width, mutable_data<To>(grad_hidden)},
             num_rows, w2);
    });
  });
  return {grad_hidden, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(basereward, CUDA, library) {
  library.impl("pairwise_reward_head", TORCH_BOX(&reward_head));
  library.impl("pairwise_reward_head_backward", TORCH_BOX(&reward_head_backward));
  library.impl("pairwise_reward_loss", TORCH_BOX(&reward_loss));
}

}  // namespace basereward
