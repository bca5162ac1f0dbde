// SPDX-License-Identifier: Apache-2.0
// Launches of the reward head. Indices are not checked here: that would wait for the device.

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cuda/launch.h"
#include "kernels/reward_head.cuh"

namespace basereward {
namespace {

template <typename T>
struct Computed {
  using Type = float;
};
template <>
struct Computed<double> {
  using Type = double;
};

template <typename Body>
void with_activation(const std::string& name, const Body& body) {
  if (name == "tanh") return body(std::integral_constant<Activation, Activation::kTanh>());
  if (name == "silu") return body(std::integral_constant<Activation, Activation::kSilu>());
  if (name == "relu") return body(std::integral_constant<Activation, Activation::kRelu>());
  STD_TORCH_CHECK(name == "none", "activation is ", name, "; allowed: none, tanh, silu, relu");
  body(std::integral_constant<Activation, Activation::kNone>());
}

template <typename Body>
void with_type(ScalarType type, const Body& body) {
  switch (type) {
    case ScalarType::Double: return body(double());
    case ScalarType::Float: return body(float());
    case ScalarType::BFloat16: return body(torch::headeronly::BFloat16());
    case ScalarType::Half: return body(torch::headeronly::Half());
    default: STD_TORCH_CHECK(false, "the op takes float64, float32, bfloat16 and float16");
  }
}

RowLayout layout_of(const Tensor& hidden) {
  if (hidden.dim() == 2) return {hidden.size(0), 0, hidden.stride(0), hidden.stride(1), hidden.size(1)};
  return {hidden.size(1), hidden.stride(0), hidden.stride(1), hidden.stride(2), hidden.size(2)};
}

std::tuple<Tensor, Tensor, Tensor> reward_head(Tensor hidden, std::optional<Tensor> ends, std::optional<Tensor> w1,
                                               std::optional<Tensor> b1, Tensor w2, std::optional<Tensor> b2,
                                               std::string activation) {
  const RowLayout layout = layout_of(hidden);
  ends = as_contiguous(ends);
  b1 = as_contiguous(b1);
  w2 = as_contiguous(w2);
  const int64_t count = ends ? ends->size(0) : hidden.numel() / std::max<int64_t>(1, layout.width);
  const ScalarType dtype = w2.scalar_type();
  const Tensor rows = torch::stable::new_empty(w2, {count, layout.width});
  with_type(hidden.scalar_type(), [&](auto given) {
    with_type(dtype, [&](auto wanted) {
      using From = decltype(given);
      using W = decltype(wanted);
      launch(GatherKernel<From, W>{data<From>(hidden), data<int64_t>(ends), layout, mutable_data<W>(rows)}, count, hidden);
    });
  });
  const Tensor pre = w1 ? torch::stable::matmul(rows, torch::stable::transpose(*w1, 0, 1)) : torch::stable::new_empty(w2, {0});
  const Tensor z = w1 ? pre : rows;
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

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> reward_head_backward(
    Tensor grad, Tensor rows, Tensor pre, std::optional<Tensor> ends, std::optional<Tensor> w1, std::optional<Tensor> b1,
    Tensor w2, Tensor like, std::vector<int64_t> shape, std::string activation, bool needs_hidden, bool needs_weights) {
  grad = as_contiguous(grad);
  w2 = as_contiguous(w2);
  b1 = as_contiguous(b1);
  ends = as_contiguous(ends);
  const int64_t count = rows.size(0), num_columns = w2.numel();
  const Tensor z = as_contiguous(w1 ? pre : rows);
  const Tensor grad_z = torch::stable::new_empty(w2, {count, num_columns});
  const Tensor grad_w2 = torch::stable::new_empty(w2, w2.sizes());
  const Tensor grad_b1 = torch::stable::new_empty(w2, {b1 ? num_columns : 0});
  const Tensor grad_b2 = torch::stable::new_empty(w2, {1});
  with_type(w2.scalar_type(), [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    with_activation(activation, [&](auto chosen) {
      launch(SlopeKernel<decltype(chosen)::value, W, T>{data<T>(grad), data<W>(z), data<W>(b1), data<W>(w2), count, num_columns,
                                                        mutable_data<W>(grad_z), b1 ? mutable_data<W>(grad_b1) : nullptr,
                                                        mutable_data<W>(grad_w2), mutable_data<W>(grad_b2)},
             std::max<int64_t>(1, blocks_of(num_columns)), w2);
    });
  });
  const Tensor grad_w1 = w1 && needs_weights ? torch::stable::matmul(torch::stable::transpose(grad_z, 0, 1), rows)
                                             : torch::stable::new_empty(w2, {0});
  Tensor grad_hidden = torch::stable::new_empty(like, {0});
  if (needs_hidden) {
    const Tensor grad_rows = w1 ? torch::stable::matmul(grad_z, *w1) : grad_z;
    grad_hidden = torch::stable::new_empty(like, {shape.data(), shape.size()});
    const int64_t width = rows.size(1);
    const int64_t num_rows = shape.size() == 2 ? shape[0] : shape[0] * shape[1];
    with_type(w2.scalar_type(), [&](auto given) {
      with_type(like.scalar_type(), [&](auto wanted) {
        using W = decltype(given);
        using To = decltype(wanted);
        launch(ScatterKernel<W, To>{data<W>(grad_rows), data<int64_t>(ends), count, width, mutable_data<To>(grad_hidden)},
               num_rows, w2);
      });
    });
  }
  return {grad_hidden, grad_w1, grad_b1, grad_w2, grad_b2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(basereward, CUDA, library) {
  library.impl("pairwise_reward_head", TORCH_BOX(&reward_head));
  library.impl("pairwise_reward_head_backward", TORCH_BOX(&reward_head_backward));
}

}  // namespace basereward
