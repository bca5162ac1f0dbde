// SPDX-License-Identifier: Apache-2.0
// Argument checks with uniform messages. Python says the same in more words first; these keep a direct call of an op
// from reading memory that isn't there.
#pragma once

#include <cstdint>
#include <optional>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace basereward {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Refuses a tensor of another dtype or shape; `columns` < 0 stands for a vector.
inline void check_tensor(const char* name, const Tensor& tensor, ScalarType dtype, int64_t rows, int64_t columns = -1) {
  STD_TORCH_CHECK(tensor.is_cpu(), name, " is not on the CPU");
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, name, " has another dtype than the op takes");
  STD_TORCH_CHECK(tensor.dim() == (columns < 0 ? 1 : 2), name, " has ", tensor.dim(), " dimensions");
  STD_TORCH_CHECK(tensor.size(0) == rows, name, " has ", tensor.size(0), " entries, not ", rows);
  STD_TORCH_CHECK(columns < 0 || tensor.size(1) == columns, name, " has rows of ", tensor.size(1), ", not ", columns);
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

}  // namespace basereward
