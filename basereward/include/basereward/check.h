// SPDX-License-Identifier: Apache-2.0
// Checks of one argument with uniform messages. Python says the same in more words first; these keep a direct call of an op
// from reading memory that isn't there.
#pragma once

#include <cstdint>
#include <optional>

#include <basereward/tensors.h>

namespace basereward {

// Refuses a tensor of another device, dtype or shape; `columns` < 0 stands for a vector.
inline void check_tensor(const char* name, const Tensor& tensor, const Tensor& beside, ScalarType dtype, int64_t rows,
                         int64_t columns = -1) {
  STD_TORCH_CHECK(tensor.is_cpu() == beside.is_cpu() && tensor.get_device_index() == beside.get_device_index(), name,
                  " is on another device");
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, name, " has another dtype than the op takes");
  STD_TORCH_CHECK(tensor.dim() == (columns < 0 ? 1 : 2), name, " has ", tensor.dim(), " dimensions");
  STD_TORCH_CHECK(tensor.size(0) == rows, name, " has ", tensor.size(0), " entries, not ", rows);
  STD_TORCH_CHECK(columns < 0 || tensor.size(1) == columns, name, " has rows of ", tensor.size(1), ", not ", columns);
}

inline void check_tensor(const char* name, const std::optional<Tensor>& tensor, const Tensor& beside, ScalarType dtype,
                         int64_t rows, int64_t columns = -1) {
  if (tensor) check_tensor(name, *tensor, beside, dtype, rows, columns);
}

}  // namespace basereward
