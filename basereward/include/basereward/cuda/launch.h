// SPDX-License-Identifier: Apache-2.0
// A launch on the current stream of a tensor's device.
#pragma once

#include <cuda_runtime.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <basereward/kernels/simt.h>
#include <basereward/tensors.h>

namespace basereward {

template <typename Kernel>
void launch(const Kernel& kernel, int64_t num_blocks, const Tensor& tensor) {
  if (num_blocks == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(tensor.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  simt::run<<<static_cast<unsigned>(num_blocks), simt::kNumThreads, Kernel::kArenaBytes, static_cast<cudaStream_t>(stream)>>>(
      kernel);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace basereward
