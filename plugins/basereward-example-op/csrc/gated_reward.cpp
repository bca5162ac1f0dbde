// SPDX-License-Identifier: Apache-2.0
// The schemas of the op and of its backward, and their CPU kernels; gated_reward.cuh has the formulas. Rows go through in
// tiles of columns, and each sum is taken by one thread in a fixed order: two runs are bit-equal on any number of threads.

#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include <basereward/cpu/activate.h>
#include <basereward/cpu/convert.h>
#include <basereward/module.h>

#include "arguments.h"

namespace basereward_example_op {
namespace {

using namespace basereward;

constexpr int64_t kTile = 512;  // columns that stay in the first-level cache

template <typename T>
BASEREWARD_INLINE T dot_body(const T* gate, const T* up, const T* weight, int64_t size) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t h = 0; h < size; ++h) sum += weight[h] * simd::activate<Activation::kSilu>(gate[h]).value * up[h];
  return sum;
}

template <typename T>
BASEREWARD_INLINE void gradient_body(T grad, const T* gate, const T* up, const T* weight, int64_t size, T* grad_gate, T* grad_up,
                                     T* sums) {
#pragma omp simd
  for (int64_t h = 0; h < size; ++h) {
    const auto gated = simd::activate<Activation::kSilu>(gate[h]);
    grad_gate[h] = grad * weight[h] * up[h] * gated.slope;
    grad_up[h] = grad * weight[h] * gated.value;
    sums[h] += grad * gated.value * up[h];
  }
}

// target_clones, which picks AVX-512 or AVX2 when the library is loaded, can't mark a template.
BASEREWARD_CLONES float dot(const float* gate, const float* up, const float* weight, int64_t size) {
  return dot_body(gate, up, weight, size);
}
double dot(const double* gate, const double* up, const double* weight, int64_t size) {
  return dot_body(gate, up, weight, size);
}
BASEREWARD_CLONES void gradient(float grad, const float* gate, const float* up, const float* weight, int64_t size,
                                float* grad_gate, float* grad_up, float* sums) {
  gradient_body(grad, gate, up, weight, size, grad_gate, grad_up, sums);
}
void gradient(double grad, const double* gate, const double* up, const double* weight, int64_t size, double* grad_gate,
              double* grad_up, double* sums) {
  gradient_body(grad, gate, up, weight, size, grad_gate, grad_up, sums);
}

// One tile of a row, in the type of the arithmetic.
template <typename T>
struct Tile {
  T values[kTile];

  template <typename W>
  const T* of(const W* from, int64_t size) {
    load(from, size, values);
    return values;
  }
};

Tensor gated_reward(Tensor gate, Tensor up, Tensor weight) {
  check_gated_reward(gate, up, weight);
  gate = as_contiguous(gate), up = as_contiguous(up), weight = as_contiguous(weight);
  const int64_t num_rows = gate.size(0), width = gate.size(1);
  const Tensor rewards = torch::stable::new_empty(gate, {num_rows}, computed_in(gate.scalar_type()));
  with_type(gate.scalar_type(), [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    torch::stable::parallel_for(0, num_rows, tasks_of(width), [&](int64_t begin, int64_t end) {
      Tile<T> gates, ups, weights;
      for (int64_t n = begin; n < end; ++n) {
        double sum = 0;
        for (int64_t h = 0; h < width; h += kTile) {
          const int64_t size = std::min(kTile, width - h), place = n * width + h;
          sum += static_cast<double>(dot(gates.of(data<W>(gate) + place, size), ups.of(data<W>(up) + place, size),
                                         weights.of(data<W>(weight) + h, size), size));
        }
        mutable_data<T>(rewards)[n] = static_cast<T>(sum);
      }
    });
  });
  return rewards;
}

std::tuple<Tensor, Tensor, Tensor> gated_reward_backward(Tensor grad, Tensor gate, Tensor up, Tensor weight) {
  check_gated_reward(gate, up, weight);
  check_gradient(grad, gate);
  grad = as_contiguous(grad), gate = as_contiguous(gate), up = as_contiguous(up), weight = as_contiguous(weight);
  const int64_t num_rows = gate.size(0), width = gate.size(1), num_tiles = (width + kTile - 1) / kTile;
  const Tensor grad_gate = torch::stable::new_empty(gate, {num_rows, width});
  const Tensor grad_up = torch::stable::new_empty(gate, {num_rows, width});
  const Tensor grad_weight = torch::stable::new_empty(gate, {width});
  with_type(gate.scalar_type(), [&](auto kind) {
    using W = decltype(kind);
    using T = typename Computed<W>::Type;
    torch::stable::parallel_for(0, num_tiles, tasks_of(num_rows * kTile), [&](int64_t begin, int64_t end) {
      Tile<T> gates, ups, weights, grad_gates, grad_ups;
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t h = tile * kTile, size = std::min(kTile, width - h);
        weights.of(data<W>(weight) + h, size);
        T sums[kTile] = {};
        for (int64_t n = 0; n < num_rows; ++n) {
          const int64_t place = n * width + h;
          gradient(data<T>(grad)[n], gates.of(data<W>(gate) + place, size), ups.of(data<W>(up) + place, size), weights.values,
                   size, grad_gates.values, grad_ups.values, sums);
          load(grad_gates.values, size, mutable_data<W>(grad_gate) + place);
          load(grad_ups.values, size, mutable_data<W>(grad_up) + place);
        }
        load(sums, size, mutable_data<W>(grad_weight) + h);
      }
    });
  });
  return {grad_gate, grad_up, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY(basereward_example_op, library) {
  library.def("gated_reward(Tensor gate, Tensor up, Tensor weight) -> Tensor");
  library.def(
      "gated_reward_backward(Tensor grad, Tensor gate, Tensor up, Tensor weight) -> (Tensor gate, Tensor up, Tensor weight)");
}

STABLE_TORCH_LIBRARY_IMPL(basereward_example_op, CPU, library) {
  library.impl("gated_reward", TORCH_BOX(&gated_reward));
  library.impl("gated_reward_backward", TORCH_BOX(&gated_reward_backward));
}

}  // namespace basereward_example_op

BASEREWARD_MODULE(_C)
