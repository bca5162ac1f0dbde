// SPDX-License-Identifier: Apache-2.0
// The words of CUDA that the kernels use. Under nvcc they are CUDA's; elsewhere testing/shim.h runs them on fibers.
//
// A kernel is a struct with a call operator, launched with kNumThreads threads a block. Its shared memory is one arena from
// the launch, never a __shared__ variable, so that the shim can fill it with NaN. There are no atomics: sums are trees of
// fixed shape, and two runs are bit-equal.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define BASEREWARD_DEVICE __device__ __forceinline__
#define BASEREWARD_BOTH __host__ __device__ __forceinline__
#define BASEREWARD_UNROLL _Pragma("unroll")
#else
#include <basereward/testing/shim.h>
#define BASEREWARD_DEVICE inline
#define BASEREWARD_BOTH inline
#define BASEREWARD_UNROLL
#endif

namespace basereward::simt {

constexpr int kNumThreads = 256;
constexpr int kWarp = 32;
constexpr int kNumWarps = kNumThreads / kWarp;
constexpr int kBlocksPerProcessor = 3;  // leaves a thread 80 registers, with which no kernel needs local memory

// Blocks that have so many threads together.
inline int64_t blocks_of(int64_t threads) { return (threads + kNumThreads - 1) / kNumThreads; }

#if defined(__CUDACC__)
extern __shared__ double shared_memory[];

BASEREWARD_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
BASEREWARD_DEVICE int64_t block() { return blockIdx.x; }
BASEREWARD_DEVICE int64_t num_blocks() { return gridDim.x; }
BASEREWARD_DEVICE void barrier() { __syncthreads(); }
BASEREWARD_DEVICE double* arena() { return shared_memory; }
template <typename T>
BASEREWARD_DEVICE T shuffle_down(T value, int offset) {
  return __shfl_down_sync(0xffffffffu, value, offset);
}

template <typename Kernel>
__global__ void __launch_bounds__(kNumThreads, kBlocksPerProcessor) run(const Kernel kernel) {
  kernel();
}
#endif

}  // namespace basereward::simt
