// SPDX-License-Identifier: Apache-2.0
// What can stand between the layers of a reward head.
#pragma once

namespace basereward {

enum class Activation { kNone, kTanh, kSilu, kRelu };

template <typename T>
struct Activated {
  T value, slope;
};

}  // namespace basereward
