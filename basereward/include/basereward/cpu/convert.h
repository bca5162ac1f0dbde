// SPDX-License-Identifier: Apache-2.0
// Values of one floating type to another, in loops that are vector code; and how many are worth a task.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <torch/headeronly/util/BFloat16.h>

#include <basereward/cpu/simd.h>

namespace basereward {

constexpr int64_t kValuesPerTask = 16384;  // less isn't worth waking a thread

inline int64_t tasks_of(int64_t values) { return std::max<int64_t>(1, kValuesPerTask / std::max<int64_t>(1, values)); }

// bf16 is the upper half of a float. torch's own conversions branch on NaN, which keeps loops over them scalar.
BASEREWARD_CLONES inline void widen(const uint16_t* from, int64_t size, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) to[i] = simd::bits_to_float(static_cast<int32_t>(static_cast<uint32_t>(from[i]) << 16));
}

// Rounds to the nearest, ties to even.
BASEREWARD_CLONES inline void narrow(const float* from, int64_t size, uint16_t* to) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t bits = static_cast<uint32_t>(simd::float_to_bits(from[i]));
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to[i] = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
  }
}

// Converts values in a loop of its own, which is vector code.
template <typename From, typename To>
BASEREWARD_INLINE void load(const From* from, int64_t size, To* to) {
  using torch::headeronly::BFloat16;
  static_assert(sizeof(BFloat16) == sizeof(uint16_t));
  if constexpr (std::is_same_v<From, To>) {
    std::copy(from, from + size, to);
  } else if constexpr (std::is_same_v<From, BFloat16> && std::is_same_v<To, float>) {
    widen(reinterpret_cast<const uint16_t*>(from), size, to);
  } else if constexpr (std::is_same_v<From, float> && std::is_same_v<To, BFloat16>) {
    narrow(from, size, reinterpret_cast<uint16_t*>(to));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) to[i] = static_cast<To>(from[i]);
  }
}

}  // namespace basereward
