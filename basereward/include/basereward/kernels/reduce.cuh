// SPDX-License-Identifier: Apache-2.0
// Sums over a block: a shuffle tree in each warp, one stage through shared memory, and a tree over the warps' sums. The shape
// is fixed, so the result is the same in every run.
#pragma once

#include <basereward/kernels/simt.h>

namespace basereward {

struct Sum {
  template <typename T>
  BASEREWARD_DEVICE static T of(T a, T b) {
    return a + b;
  }
};
struct Least {
  template <typename T>
  BASEREWARD_DEVICE static T of(T a, T b) {
    return b < a ? b : a;
  }
};
struct Greatest {
  template <typename T>
  BASEREWARD_DEVICE static T of(T a, T b) {
    return b > a ? b : a;
  }
};

template <typename Operation, typename T>
BASEREWARD_DEVICE T reduce_warp(T value) {
  for (int offset = simt::kWarp / 2; offset > 0; offset /= 2)
    value = Operation::of(value, simt::shuffle_down(value, offset));
  return value;
}

// Returns the reduction in thread 0. `room` holds kNumWarps values and is free again when the call returns.
template <typename Operation, typename T>
BASEREWARD_DEVICE T reduce_block(T value, T neutral, T* room) {
  const int lane = simt::thread() % simt::kWarp, warp = simt::thread() / simt::kWarp;
  value = reduce_warp<Operation>(value);
  if (lane == 0) room[warp] = value;
  simt::barrier();
  if (warp == 0) value = reduce_warp<Operation>(lane < simt::kNumWarps ? room[lane] : neutral);
  simt::barrier();
  return value;
}

}  // namespace basereward
