// SPDX-License-Identifier: Apache-2.0
// The activations of a reward head and their derivatives, branch-free.
#pragma once

#include <cmath>

#include <basereward/activation.h>
#include <basereward/cpu/simd.h>

namespace basereward::simd {

template <Activation kActivation, typename T>
BASEREWARD_INLINE Activated<T> activate(T z) {
  if constexpr (kActivation == Activation::kNone) {
    return {z, T(1)};
  } else if constexpr (kActivation == Activation::kRelu) {
    return {z < 0 ? T(0) : z, z > 0 ? T(1) : T(0)};
  } else if constexpr (kActivation == Activation::kTanh) {
    const T t = exp_minus(2 * std::abs(z));
    const T size = (T(1) - t) / (T(1) + t);
    const T value = z < 0 ? -size : size;
    return {value, T(1) - value * value};
  } else {
    const T t = exp_minus(std::abs(z));
    const T sigmoid = (z > 0 ? T(1) : t) / (T(1) + t);
    return {z * sigmoid, sigmoid * (T(1) + z * (T(1) - sigmoid))};
  }
}

}  // namespace basereward::simd
