// SPDX-License-Identifier: Apache-2.0
#include <basereward/module.h>

BASEREWARD_MODULE(_C_cuda)
