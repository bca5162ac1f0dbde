// SPDX-License-Identifier: Apache-2.0
// Softplus, sigmoid and activations with their derivatives, on host and device.
#pragma once

#include <cmath>

#include <basereward/activation.h>
#include <basereward/kernels/simt.h>

namespace basereward {

template <typename T>
struct Softplus {
  T value, slope;  // softplus(x) and its derivative sigmoid(x)
};

// One t = exp(-|x|) serves both, and nothing overflows. NaN stays NaN.
template <typename T>
BASEREWARD_BOTH Softplus<T> softplus(T x) {
  using std::abs, std::exp, std::log1p;
  const T t = exp(-abs(x));
  return {(x < 0 ? T(0) : x) + log1p(t), (x < 0 ? t : T(1)) / (T(1) + t)};
}

template <Activation kActivation, typename T>
BASEREWARD_BOTH Activated<T> activate(T z) {
  using std::tanh;
  if constexpr (kActivation == Activation::kNone) {
    return {z, T(1)};
  } else if constexpr (kActivation == Activation::kRelu) {
    return {z < 0 ? T(0) : z, z > 0 ? T(1) : T(0)};
  } else if constexpr (kActivation == Activation::kTanh) {
    const T value = tanh(z);
    return {value, T(1) - value * value};
  } else {
    const T sigmoid = softplus(z).slope;
    return {z * sigmoid, sigmoid * (T(1) + z * (T(1) - sigmoid))};
  }
}

}  // namespace basereward
