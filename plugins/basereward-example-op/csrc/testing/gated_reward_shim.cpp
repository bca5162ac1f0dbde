// SPDX-License-Identifier: Apache-2.0
// The device kernels on the CPU, for pytest.

#include <string>

#include <torch/headeronly/util/BFloat16.h>

#include <basereward/testing/arrays.h>

#include "gated_reward.cuh"

namespace basereward_example_op {
namespace {

using namespace basereward::simt::arrays;

template <typename W, typename T>
Array<T> reward(const Array<W>& gate, const Array<W>& up, const Array<W>& weight, const std::string& schedule, uint64_t seed) {
  Array<T> rewards(gate.shape(0));
  const RewardKernel<W, T> kernel{data<W>(gate), data<W>(up), data<W>(weight), gate.shape(1), mutable_data<T>(rewards)};
  plan_of(schedule, seed).launch(kernel, gate.shape(0));
  return rewards;
}

template <typename W, typename T>
py::tuple gradient(const Array<T>& grad, const Array<W>& gate, const Array<W>& up, const Array<W>& weight,
                   const std::string& schedule, uint64_t seed) {
  const int64_t num_rows = gate.shape(0), width = gate.shape(1);
  Array<W> grad_gate({num_rows, width}), grad_up({num_rows, width}), grad_weight(width);
  const GradientKernel<W, T> kernel{data<T>(grad), data<W>(gate), data<W>(up), data<W>(weight), num_rows, width,
                                    mutable_data<W>(grad_gate), mutable_data<W>(grad_up), mutable_data<W>(grad_weight)};
  plan_of(schedule, seed).launch(kernel, simt::blocks_of(width));
  return py::make_tuple(grad_gate, grad_up, grad_weight);
}

template <typename W, typename T>
void define(py::module_& module, const char* name) {
  auto kernels = module.def_submodule(name);
  kernels.def("reward", &reward<W, T>);
  kernels.def("gradient", &gradient<W, T>);
}

}  // namespace
}  // namespace basereward_example_op

PYBIND11_MODULE(gated_reward_shim, module) {
  using namespace basereward_example_op;
  define<float, float>(module, "float32");
  define<double, double>(module, "float64");
  define<torch::headeronly::BFloat16, float>(module, "bfloat16");
}
