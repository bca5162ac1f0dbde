// SPDX-License-Identifier: Apache-2.0
// Importing a library of ops registers them; as a Python module it has no contents of its own.
#pragma once

#include <Python.h>

#define BASEREWARD_MODULE(NAME)                                                                                    \
  extern "C" __attribute__((visibility("default"))) PyObject* PyInit_##NAME() {                                    \
    static PyModuleDef definition = {PyModuleDef_HEAD_INIT, #NAME, nullptr, 0, nullptr, nullptr, nullptr, nullptr, \
                                     nullptr};                                                                     \
    return PyModule_Create(&definition);                                                                           \
  }
