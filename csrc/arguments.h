// SPDX-License-Identifier: Apache-2.0
// What the ops refuse, on the CPU and on a device.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <basereward/check.h>

namespace basereward {

inline void check_bt_loss(const Tensor& rewards, const Tensor& pairs, const std::optional<Tensor>& tie,
                          const std::optional<Tensor>& margin, const std::optional<Tensor>& weight,
                          const std::optional<Tensor>& lengths) {
  const ScalarType dtype = rewards.scalar_type();
  STD_TORCH_CHECK(rewards.dim() == 1, "rewards has ", rewards.dim(), " dimensions, not 1");
  STD_TORCH_CHECK(pairs.dim() == 2, "pairs has ", pairs.dim(), " dimensions, not 2");
  STD_TORCH_CHECK(dtype == ScalarType::Double || dtype == ScalarType::Float, "rewards is neither float32 nor float64");
  const int64_t num_pairs = pairs.size(0);
  check_tensor("pairs", pairs, rewards, ScalarType::Long, num_pairs, 2);
  check_tensor("tie", tie, rewards, ScalarType::Bool, num_pairs);
  check_tensor("margin", margin, rewards, dtype, num_pairs);
  check_tensor("weight", weight, rewards, dtype, num_pairs);
  check_tensor("lengths", lengths, rewards, ScalarType::Long, rewards.size(0));
}

inline void check_reward_head(const Tensor& hidden, const std::optional<Tensor>& ends, const std::optional<Tensor>& norm,
                              const std::optional<Tensor>& w1, const std::optional<Tensor>& b1, const Tensor& w2,
                              const std::optional<Tensor>& b2) {
  STD_TORCH_CHECK(hidden.dim() == 2 || hidden.dim() == 3, "hidden has ", hidden.dim(), " dimensions, not 2 or 3");
  const int64_t width = hidden.size(hidden.dim() - 1), num_columns = w1 ? w1->size(0) : width;
  const ScalarType dtype = w2.scalar_type();
  if (ends) check_tensor("ends", *ends, hidden, ScalarType::Long, ends->size(0));
  check_tensor("norm", norm, hidden, dtype, width);
  check_tensor("w1", w1, hidden, dtype, num_columns, width);
  check_tensor("b1", b1, hidden, dtype, num_columns);
  STD_TORCH_CHECK(w2.is_cpu() == hidden.is_cpu() && w2.numel() == num_columns, "w2 has ", w2.numel(), " entries, not ",
                  num_columns);
  STD_TORCH_CHECK(w2.dim() == 1 || (w2.dim() == 2 && w2.size(0) == 1), "w2 is not one row");
  STD_TORCH_CHECK(!b2 || b2->dim() <= 1, "b2 has ", b2 ? b2->dim() : 0, " dimensions");
  STD_TORCH_CHECK(!b2 || (b2->is_cpu() == hidden.is_cpu() && b2->scalar_type() == dtype && b2->numel() == 1),
                  "b2 is not one number");
}

// Of what the forward has returned, the gradient of its rewards, and the shape of the hidden states.
inline void check_reward_head_backward(const Tensor& grad, const Tensor& rows, const Tensor& pre,
                                       const std::optional<Tensor>& ends, const std::optional<Tensor>& norm,
                                       const std::optional<Tensor>& w1, const std::optional<Tensor>& b1, const Tensor& w2,
                                       const std::vector<int64_t>& shape) {
  STD_TORCH_CHECK(rows.dim() == 2, "rows has ", rows.dim(), " dimensions, not 2");
  STD_TORCH_CHECK(shape.size() == 2 || shape.size() == 3, "shape has ", shape.size(), " dimensions, not 2 or 3");
  STD_TORCH_CHECK(shape.back() == rows.size(1), "shape ends with ", shape.back(), ", not ", rows.size(1));
  const int64_t num_rows = shape.size() == 2 ? shape[0] : shape[0] * shape[1];
  STD_TORCH_CHECK(ends || num_rows == rows.size(0), "shape has ", num_rows, " rows, not ", rows.size(0));
  const ScalarType dtype = w2.scalar_type();
  const int64_t count = rows.size(0);
  check_reward_head(rows, std::nullopt, norm, w1, b1, w2, std::nullopt);
  check_tensor("rows", rows, w2, dtype, count, rows.size(1));
  check_tensor("grad", grad, w2, dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float, count);
  check_tensor("ends", ends, w2, ScalarType::Long, count);
  if (w1) check_tensor("pre", pre, w2, dtype, count, w1->size(0));
}

}  // namespace basereward
