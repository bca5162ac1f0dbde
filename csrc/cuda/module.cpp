// SPDX-License-Identifier: Apache-2.0
// The library of CUDA kernels; it adds implementations to the schemas of the other one, which has to be loaded first.

#include <basereward/module.h>

BASEREWARD_MODULE(_C_cuda)
