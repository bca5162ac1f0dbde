// SPDX-License-Identifier: Apache-2.0
// NumPy arrays as arguments of kernels that run on the shim, for a pybind11 module that pytest builds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <basereward/testing/shim.h>

namespace basereward::simt::arrays {

namespace py = pybind11;

// numpy has no bf16, so values of two bytes come and go as uint16.
template <typename T>
struct Stored {
  using Type = std::conditional_t<sizeof(T) == 2, uint16_t, T>;
};
template <typename T>
using Array = py::array_t<typename Stored<T>::Type, py::array::c_style>;
template <typename T>
using Optional = std::optional<Array<T>>;

template <typename T>
const T* data(const Array<T>& array) {
  return reinterpret_cast<const T*>(array.data());
}

template <typename T>
const T* data(const Optional<T>& array) {
  return array ? reinterpret_cast<const T*>(array->data()) : nullptr;
}

template <typename T>
T* mutable_data(Array<T>& array) {
  return reinterpret_cast<T*>(array.mutable_data());
}

inline Plan plan_of(const std::string& schedule, uint64_t seed) {
  const char* names[] = {"forward", "backward", "random", "greedy"};
  for (int number = 0; number < 4; ++number)
    if (schedule == names[number]) return {static_cast<Schedule>(number), seed};
  throw py::value_error("schedule is forward, backward, random or greedy");
}

}  // namespace basereward::simt::arrays
