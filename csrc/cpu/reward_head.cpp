// SPDX-License-Identifier: Apache-2.0
// The reward head on N rows of hidden states: gather, GEMM (torch's), and one pass for bias, activation and dot product.
//
//     x_n = hidden[ends_n],  z_n = W1 x_n,  r_n = b2 + sum_h w2_h act(z_nh + b1_h)
//
// and x_n goes through the model's final RMSNorm first where its weight is given (rows.h).
// Its gradient, for g = d loss / d r, is one pass over z for
//     dz_nh = g_n w2_h act'(z_nh + b1_h),  dw2_h = sum_n g_n act(z_nh + b1_h),  db1_h = sum_n dz_nh,  db2 = sum_n g_n,
// two GEMMs, dx = dz W1 and dW1 = dz^T x, and one pass that writes a gradient of hidden states. Sums run over n in order, so
// nothing depends on the number of threads. Without W1 the head is linear: z = x. What is kept for the gradient is the rows as
// gathered and z; normalising N rows again costs next to nothing.

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include <basereward/cpu/activate.h>

#include "arguments.h"
#include "cpu/few_rows.h"
#include "cpu/rows.h"
#include "ops.h"

namespace basereward {
namespace {

constexpr int64_t kTile = 512;  // columns whose sums stay in the first-level cache
constexpr int64_t kRowsInOneSum = 32;  // rows added up in the type of the arithmetic, before double takes over

Activation parse(const std::string& name) {
  if (name == "tanh") return Activation::kTanh;
  if (name == "silu") return Activation::kSilu;
  if (name == "relu") return Activation::kRelu;
  STD_TORCH_CHECK(name == "none", "activation is ", name, "; allowed: none, tanh, silu, relu");
  return Activation::kNone;
}

// Calls `body` with the activation and the type of the values as compile-time constants.
template <typename Body>
void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kNone: return body(std::integral_constant<Activation, Activation::kNone>());
    case Activation::kTanh: return body(std::integral_constant<Activation, Activation::kTanh>());
    case Activation::kSilu: return body(std::integral_constant<Activation, Activation::kSilu>());
    case Activation::kRelu: return body(std::integral_constant<Activation, Activation::kRelu>());
  }
}

void check_ends(const int64_t* ends, int64_t count, int64_t num_rows) {
  std::vector<int64_t> sorted(ends, ends + count);
  std::sort(sorted.begin(), sorted.end());
  STD_TORCH_CHECK(sorted.empty() || (sorted.front() >= 0 && sorted.back() < num_rows), "ends holds an index outside the ",
                  num_rows, " rows");
  STD_TORCH_CHECK(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(), "ends holds an index twice");
}

template <Activation kActivation, typename T>
BASEREWARD_INLINE T dot_body(const T* z, const T* bias, const T* weight, int64_t size) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += weight[i] * simd::activate<kActivation>(z[i] + bias[i]).value;
  return sum;
}

template <Activation kActivation, typename T>
BASEREWARD_INLINE void slope_body(const T* z, const T* bias, const T* weight, T grad, int64_t size, T* grad_z,
                                  T* grad_weight, T* grad_bias) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const auto activated = simd::activate<kActivation>(z[i] + bias[i]);
    grad_z[i] = grad * weight[i] * activated.slope;
    grad_weight[i] += grad * activated.value;
    grad_bias[i] += grad_z[i];
  }
}

// target_clones can't mark a template, so each pair of activation and type has its own two functions.
#define BASEREWARD_HEAD_LOOPS(ACTIVATION, T, CLONES)                                                            \
  CLONES T dot(std::integral_constant<Activation, ACTIVATION>, const T* z, const T* bias, const T* weight, int64_t size) { \
    return dot_body<ACTIVATION>(z, bias, weight, size);                                                               \
  }                                                                                                                   \
  CLONES void slope(std::integral_constant<Activation, ACTIVATION>, const T* z, const T* bias, const T* weight, T grad,  \
                    int64_t size, T* grad_z, T* grad_weight, T* grad_bias) {                                \
    slope_body<ACTIVATION>(z, bias, weight, grad, size, grad_z, grad_weight, grad_bias);                              \
  }
#define BASEREWARD_HEAD_TYPES(ACTIVATION)                                 \
  BASEREWARD_HEAD_LOOPS(ACTIVATION, float, BASEREWARD_CLONES) \
  BASEREWARD_HEAD_LOOPS(ACTIVATION, double, )

BASEREWARD_HEAD_TYPES(Activation::kNone)
BASEREWARD_HEAD_TYPES(Activation::kTanh)
BASEREWARD_HEAD_TYPES(Activation::kSilu)
BASEREWARD_HEAD_TYPES(Activation::kRelu)
#undef BASEREWARD_HEAD_TYPES
#undef BASEREWARD_HEAD_LOOPS

template <typename T>
BASEREWARD_INLINE void add(const T* from, int64_t size, double* to) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) to[i] += static_cast<double>(from[i]);
}

// The head's last layer in the type of its arithmetic.
template <typename T>
struct LastLayer {
  std::vector<T> bias, weight;  // [H]
  T offset = 0;

  template <typename W>
  LastLayer(const std::optional<Tensor>& b1, const Tensor& w2, const std::optional<Tensor>& b2, W) {
    const int64_t width = w2.numel();
    bias.assign(static_cast<size_t>(width), T(0));
    weight.resize(static_cast<size_t>(width));
    if (b1) load(data<W>(*b1), width, bias.data());
    load(data<W>(w2), width, weight.data());
    if (b2) offset = static_cast<T>(data<W>(*b2)[0]);
  }
};

Tensor product(const Tensor& rows, const Tensor& w1) {
  const int64_t count = rows.size(0), num_columns = w1.size(0);
  if (rows.scalar_type() != ScalarType::Float || count > kFewRows || !w1.is_contiguous())
    return torch::stable::matmul(rows, torch::stable::transpose(w1, 0, 1));
  const Tensor z = torch::stable::new_empty(rows, {count, num_columns});
  multiply_few_rows(data<float>(rows), count, data<float>(w1), rows.size(1), num_columns, mutable_data<float>(z));
  return z;
}

// The rows after the norm, if there is one.
Tensor normalised(const Tensor& rows, const std::optional<Tensor>& norm, double eps) {
  if (!norm) return rows;
  const Tensor normed = torch::stable::new_empty(rows, {rows.size(0), rows.size(1)});
  with_type(rows.scalar_type(), [&](auto kind) { RMSNorm<decltype(kind)>(rows, *norm, eps).forward(normed); });
  return normed;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> reward_head(Tensor hidden, std::optional<Tensor> ends, std::optional<Tensor> norm,
                                               double eps, std::optional<Tensor> w1, std::optional<Tensor> b1, Tensor w2,
                                               std::optional<Tensor> b2, std::string activation) {
  check_reward_head(hidden, ends, norm, w1, b1, w2, b2);
  const Rows layout(hidden);
  ends = as_contiguous(ends);
  norm = as_contiguous(norm);
  b1 = as_contiguous(b1);
  w2 = as_contiguous(w2);
  const int64_t count = ends ? ends->size(0) : layout.count;
  const int64_t* places = data<int64_t>(ends);
  if (ends) check_ends(places, count, layout.count);

  const ScalarType dtype = w2.scalar_type();
  const bool is_double = dtype == ScalarType::Double;
  const Tensor rows = torch::stable::new_empty(w2, {count, layout.width});
  gather(hidden, places, rows);
  const Tensor normed = normalised(rows, norm, eps);
  const Tensor pre = w1 ? product(normed, *w1) : torch::stable::new_empty(w2, {0});
  const Tensor z = w1 ? pre : normed;
  const Tensor rewards = torch::stable::new_empty(w2, {count}, is_double ? ScalarType::Double : ScalarType::Float);
  const int64_t num_columns = w2.numel();
  with_type(dtype, [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    const LastLayer<T> last(b1, w2, b2, kind);
    with_activation(parse(activation), [&](auto chosen) {
      torch::stable::parallel_for(0, count, tasks_of(num_columns), [&](int64_t begin, int64_t end) {
        T values[kTile];
        for (int64_t n = begin; n < end; ++n) {
          double sum = static_cast<double>(last.offset);
          for (int64_t h = 0; h < num_columns; h += kTile) {
            const int64_t size = std::min(kTile, num_columns - h);
            load(data<W>(z) + n * num_columns + h, size, values);
            sum += static_cast<double>(dot(chosen, values, last.bias.data() + h, last.weight.data() + h, size));
          }
          mutable_data<T>(rewards)[n] = static_cast<T>(sum);
        }
      });
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
  const int64_t count = rows.size(0), num_columns = w2.numel();
  const ScalarType dtype = w2.scalar_type();
  grad = as_contiguous(grad);
  rows = as_contiguous(rows);
  ends = as_contiguous(ends);
  norm = as_contiguous(norm);
  b1 = as_contiguous(b1);
  w2 = as_contiguous(w2);
  const Tensor normed = normalised(rows, norm, eps);
  const Tensor z = as_contiguous(w1 ? pre : normed);
  const Tensor grad_z = torch::stable::new_empty(w2, {count, num_columns});
  const Tensor grad_w2 = torch::stable::new_empty(w2, w2.sizes());
  const Tensor grad_b1 = torch::stable::new_empty(w2, {b1 ? num_columns : 0});
  const Tensor grad_b2 = torch::stable::new_empty(w2, {1});
  with_type(dtype, [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    const LastLayer<T> last(b1, w2, std::nullopt, kind);
    const T* upstream = data<T>(grad);
    with_activation(parse(activation), [&](auto chosen) {
      const int64_t num_tiles = (num_columns + kTile - 1) / kTile;
      torch::stable::parallel_for(0, num_tiles, tasks_of(kTile * count), [&](int64_t begin, int64_t end) {
        T values[kTile], slopes[kTile], some_weight[kTile], some_bias[kTile];
        double sum_weight[kTile], sum_bias[kTile];
        for (int64_t h = begin * kTile; h < std::min(end * kTile, num_columns); h += kTile) {
          const int64_t size = std::min(kTile, num_columns - h);
          std::fill_n(sum_weight, size, 0.0);
          std::fill_n(sum_bias, size, 0.0);
          for (int64_t first = 0; first < count; first += kRowsInOneSum) {
            std::fill_n(some_weight, size, T(0));
            std::fill_n(some_bias, size, T(0));
            for (int64_t n = first; n < std::min(first + kRowsInOneSum, count); ++n) {
              load(data<W>(z) + n * num_columns + h, size, values);
              slope(chosen, values, last.bias.data() + h, last.weight.data() + h, upstream[n], size, slopes, some_weight,
                    some_bias);
              load(slopes, size, mutable_data<W>(grad_z) + n * num_columns + h);
            }
            add(some_weight, size, sum_weight);
            add(some_bias, size, sum_bias);
          }
          load(sum_weight, size, mutable_data<W>(grad_w2) + h);
          if (b1) load(sum_bias, size, mutable_data<W>(grad_b1) + h);
        }
      });
    });
    double sum = 0;
    for (int64_t n = 0; n < count; ++n) sum += static_cast<double>(upstream[n]);
    mutable_data<W>(grad_b2)[0] = static_cast<W>(sum);
  });

  const Tensor grad_w1 = w1 && needs_weights ? torch::stable::matmul(torch::stable::transpose(grad_z, 0, 1), normed)
                                             : torch::stable::new_empty(w2, {0});
  const Tensor grad_norm = torch::stable::new_empty(w2, {norm ? norm->size(0) : 0});
  Tensor grad_hidden = torch::stable::new_empty(like, {0});
  if (needs_hidden || norm) {
    Tensor grad_rows = w1 ? torch::stable::matmul(grad_z, *w1) : grad_z;
    if (norm) {
      const Tensor grad_normed = as_contiguous(grad_rows);
      grad_rows = torch::stable::new_empty(w2, {count, rows.size(1)});
      with_type(dtype, [&](auto kind) {
        RMSNorm<decltype(kind)>(rows, *norm, eps).backward(grad_normed, grad_rows, grad_norm);
      });
    }
    if (!needs_hidden) return {grad_hidden, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2};
    if (!ends && like.scalar_type() == dtype) {
      grad_hidden = torch::stable::view(as_contiguous(grad_rows), {shape.data(), shape.size()});
      return {grad_hidden, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2};
    }
    grad_hidden = torch::stable::new_empty(like, {shape.data(), shape.size()});
    if (ends) check_ends(data<int64_t>(ends), count, Rows(grad_hidden).count);
    scatter(as_contiguous(grad_rows), data<int64_t>(ends), grad_hidden);
  }
  return {grad_hidden, grad_norm, grad_w1, grad_b1, grad_w2, grad_b2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(basereward, CPU, library) {
  library.impl("pairwise_reward_head", TORCH_BOX(&reward_head));
  library.impl("pairwise_reward_head_backward", TORCH_BOX(&reward_head_backward));
  library.impl("pairwise_reward_loss", TORCH_BOX(&reward_loss));
}

}  // namespace basereward
