// SPDX-License-Identifier: Apache-2.0
// Branch-free exp and log: loops over these become vector code, where calls of libm (or a branch) would not.
// Float versions are good to about 2 units in the last place; double ones are libm's, for gradient checks.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// One binary that picks AVX-512, AVX2 or the baseline when it is loaded. Needs ifunc, so glibc and x86-64.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && \
    !defined(__SANITIZE_ADDRESS__)
#define BASEREWARD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BASEREWARD_CLONES
#endif

#define BASEREWARD_INLINE inline __attribute__((always_inline))

namespace basereward::simd {

BASEREWARD_INLINE float bits_to_float(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

BASEREWARD_INLINE int32_t float_to_bits(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// exp(-x) for x >= 0, NaN for NaN. x = -(n ln2 + r) with |r| <= ln2 / 2, then the series of exp(r) to r^7.
BASEREWARD_INLINE float exp_minus(float x) {
  constexpr float kLog2e = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;  // 9 bits, so that n * kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  constexpr float kLargest = 87.0f;      // exp(-87) is still a normal number
  const float y = -(x > kLargest ? kLargest : x);
  const float shifted = y * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (y - n * kLn2High) - n * kLn2Low;
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 1.0f / 2;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const uint32_t exponent = static_cast<uint32_t>(float_to_bits(shifted) - float_to_bits(kRound)) + 127u;
  const float scaled = series * bits_to_float(static_cast<int32_t>(exponent << 23));
  return x > kLargest ? 0.0f : scaled;
}

// 2 atanh(s) for |s| <= 1/3; the first term left out is s^14 / 15 < 2e-8 of the sum.
BASEREWARD_INLINE float twice_atanh(float s) {
  const float square = s * s;
  float series = 1.0f / 13;
  series = series * square + 1.0f / 11;
  series = series * square + 1.0f / 9;
  series = series * square + 1.0f / 7;
  series = series * square + 1.0f / 5;
  series = series * square + 1.0f / 3;
  series = series * square + 1.0f;
  return 2.0f * s * series;
}

// log(1 + t) for t in [0, 1], accurate for small t too: log(1 + t) = 2 atanh(t / (2 + t)).
BASEREWARD_INLINE float log1p_unit(float t) { return twice_atanh(t / (2.0f + t)); }

// log(x) for normal x > 0: x = 2^n m with m in [sqrt(1/2), sqrt(2)), log x = n ln2 + 2 atanh((m - 1) / (m + 1)).
BASEREWARD_INLINE float log_positive(float x) {
  constexpr float kLn2 = 0.69314718f;
  constexpr int32_t kSqrtHalf = 0x3f3504f3;  // the bits of sqrt(1/2)
  const int32_t bits = float_to_bits(x);
  const int32_t n = (bits - kSqrtHalf) >> 23;
  const float m = bits_to_float(bits - static_cast<int32_t>(static_cast<uint32_t>(n) << 23));
  return static_cast<float>(n) * kLn2 + twice_atanh((m - 1.0f) / (m + 1.0f));
}

BASEREWARD_INLINE double exp_minus(double x) { return std::exp(-x); }
BASEREWARD_INLINE double log1p_unit(double t) { return std::log1p(t); }
BASEREWARD_INLINE double log_positive(double x) { return std::log(x); }

}  // namespace basereward::simd
