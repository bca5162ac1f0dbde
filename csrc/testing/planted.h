// SPDX-License-Identifier: Apache-2.0
// Kernels with a known fault each, which the tests must find.
#pragma once

#include <basereward/kernels/reduce.cuh>

namespace basereward {

enum class Fault { kNone, kMissingBarrier, kRace, kOutOfBounds };

// Sums 256 values; with `kMissingBarrier` the first warp doesn't wait for the others' sums, with `kRace` every thread writes
// the result, with `kOutOfBounds` the last one reads a value too many.
struct PlantedKernel {
  static constexpr size_t kArenaBytes = (simt::kNumWarps + 1) * sizeof(double);
  const double* values;  // [256]
  double* result;
  Fault fault;

  void operator()() const {
    const int lane = simt::thread() % simt::kWarp, warp = simt::thread() / simt::kWarp;
    double value = values[simt::thread()];
    if (fault == Fault::kOutOfBounds && simt::thread() == simt::kNumThreads - 1) value += values[simt::kNumThreads];
    value = reduce_warp<Sum>(value);
    if (lane == 0) simt::arena()[warp] = value;
    if (fault != Fault::kMissingBarrier) simt::barrier();
    if (warp == 0) value = reduce_warp<Sum>(lane < simt::kNumWarps ? simt::arena()[lane] : 0.0);
    if (fault == Fault::kRace) {
      *result = values[simt::thread()];
    } else if (simt::thread() == 0) {
      *result = value;
    }
  }
};

}  // namespace basereward
