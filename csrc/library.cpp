// SPDX-License-Identifier: Apache-2.0
// The schemas of all ops. Implementations register themselves: cpu/ in this library, cuda/ in its own.

#include <Python.h>

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(basereward, library) {
  library.def(
      "batched_bt_loss(Tensor rewards, Tensor pairs, Tensor? tie, Tensor? margin, Tensor? weight, Tensor? lengths, "
      "float label_smoothing, float zero_coefficient, float tie_weight) -> (Tensor loss, Tensor grad, Tensor statistics)");
}

// Importing the module loads the library, which registers the ops; it has no Python contents of its own.
extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
