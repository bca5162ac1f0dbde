// SPDX-License-Identifier: Apache-2.0
// What the CPU's and the device's code have in common in handling tensors.
#pragma once

#include <cstdint>
#include <optional>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

namespace basereward {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The type that values of a type are computed in.
template <typename T>
struct Computed {
  using Type = float;
};
template <>
struct Computed<double> {
  using Type = double;
};

// Calls `body` with a value of the type.
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

template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data_ptr());
}

template <typename T>
const T* data(const std::optional<Tensor>& tensor) {
  return tensor ? data<T>(*tensor) : nullptr;
}

template <typename T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline std::optional<Tensor> as_contiguous(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(as_contiguous(*tensor)) : std::nullopt;
}

}  // namespace basereward
