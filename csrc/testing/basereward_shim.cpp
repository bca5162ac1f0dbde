// SPDX-License-Identifier: Apache-2.0
// The device kernels on the CPU, for pytest. Built by the tests, never shipped.

#include <algorithm>
#include <string>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <basereward/testing/arrays.h>

#include "testing/launches.h"
#include "testing/planted.h"

namespace py = pybind11;
using namespace basereward;
using namespace basereward::simt::arrays;

namespace {

template <typename T>
py::tuple bt_loss(const Array<T>& rewards, const Array<int64_t>& pairs, const Optional<bool>& tie, const Optional<T>& margin,
                  const Optional<T>& weight, const Optional<int64_t>& lengths, T label_smoothing, T zero_coefficient,
                  T tie_weight, int64_t num_blocks, bool sorts, const std::string& schedule, uint64_t seed) {
  Array<T> loss(1), grad(rewards.size());
  Array<double> statistics(kNumStatistics);
  launch_bt_loss<T>({data<T>(rewards), pairs.data(), data<bool>(tie), data<T>(margin), data<T>(weight), data<int64_t>(lengths),
                     rewards.size(), pairs.shape(0), label_smoothing, zero_coefficient, tie_weight, nullptr, nullptr,
                     mutable_data<T>(loss), mutable_data<T>(grad), statistics.mutable_data()},
                    num_blocks, sorts, plan_of(schedule, seed));
  return py::make_tuple(loss, grad, statistics);
}

// Hidden states [B, L, D] with any strides.
template <typename W>
Array<W> gather(const py::array_t<typename Stored<W>::Type>& hidden, const Array<int64_t>& ends, const std::string& schedule,
                uint64_t seed) {
  const auto stride = [&](int axis) { return hidden.strides(axis) / static_cast<py::ssize_t>(sizeof(W)); };
  const int64_t width = hidden.shape(2), per_batch = hidden.shape(1);
  Array<W> rows({ends.size(), static_cast<py::ssize_t>(width)});
  const RowLayout layout{per_batch, stride(0), stride(1), stride(2), width};
  plan_of(schedule, seed)
      .launch(GatherKernel<W, W>{reinterpret_cast<const W*>(hidden.data()), ends.data(), hidden.shape(0) * per_batch, layout,
                                 mutable_data<W>(rows)},
              ends.size());
  return rows;
}

template <typename W, typename T>
py::tuple norm(const Array<W>& rows, const Array<W>& weight, T eps, const std::string& schedule, uint64_t seed) {
  Array<W> normed({rows.shape(0), rows.shape(1)});
  Array<T> scale(rows.shape(0));
  plan_of(schedule, seed)
      .launch(NormKernel<W, T>{data<W>(rows), data<W>(weight), rows.shape(1), eps, mutable_data<W>(normed), mutable_data<T>(scale)},
              rows.shape(0));
  return py::make_tuple(normed, scale);
}

template <typename W, typename T>
py::tuple norm_backward(const Array<W>& grad_normed, const Array<W>& rows, const Array<W>& weight, const Array<T>& scale,
                        const std::string& schedule, uint64_t seed) {
  const int64_t count = rows.shape(0), width = rows.shape(1);
  Array<W> grad_rows({count, width}), grad_weight(width);
  const simt::Plan plan = plan_of(schedule, seed);
  plan.launch(NormRowsKernel<W, T>{data<W>(grad_normed), data<W>(rows), data<W>(weight), data<T>(scale), width,
                                   mutable_data<W>(grad_rows)},
              count);
  launch_norm_weight<W, T>(data<W>(grad_normed), data<W>(rows), data<T>(scale), count, width, mutable_data<W>(grad_weight), plan);
  return py::make_tuple(grad_rows, grad_weight);
}

template <typename Body>
void with_activation(const std::string& name, const Body& body) {
  if (name == "none") return body(std::integral_constant<Activation, Activation::kNone>());
  if (name == "tanh") return body(std::integral_constant<Activation, Activation::kTanh>());
  if (name == "silu") return body(std::integral_constant<Activation, Activation::kSilu>());
  return body(std::integral_constant<Activation, Activation::kRelu>());
}

template <typename W, typename T>
Array<T> reward(const Array<W>& pre, const Optional<W>& bias, const Array<W>& weight, const Optional<W>& offset,
                const std::string& activation, const std::string& schedule, uint64_t seed) {
  Array<T> rewards(pre.shape(0));
  with_activation(activation, [&](auto chosen) {
    plan_of(schedule, seed)
        .launch(RewardKernel<decltype(chosen)::value, W, T>{data<W>(pre), data<W>(bias), data<W>(weight), data<W>(offset),
                                                            weight.size(), mutable_data<T>(rewards)},
                pre.shape(0));
  });
  return rewards;
}

template <typename W, typename T>
py::tuple slope(const Array<T>& grad, const Array<W>& pre, const Optional<W>& bias, const Array<W>& weight,
                const std::string& activation, const std::string& schedule, uint64_t seed) {
  Array<W> grad_pre({pre.shape(0), pre.shape(1)}), grad_bias(weight.size()), grad_weight(weight.size()), grad_offset(1);
  with_activation(activation, [&](auto chosen) {
    launch_slope<decltype(chosen)::value, W, T>(data<T>(grad), data<W>(pre), data<W>(bias), data<W>(weight), pre.shape(0),
                                                weight.size(), mutable_data<W>(grad_pre), mutable_data<W>(grad_bias),
                                                mutable_data<W>(grad_weight), mutable_data<W>(grad_offset),
                                                plan_of(schedule, seed));
  });
  return py::make_tuple(grad_pre, grad_bias, grad_weight, grad_offset);
}

template <typename W>
Array<W> scatter(const Array<W>& grad_rows, const Array<int64_t>& ends, int64_t num_rows, const std::string& schedule,
                 uint64_t seed) {
  const int64_t width = grad_rows.shape(1);
  Array<W> grad_hidden({num_rows, width});
  plan_of(schedule, seed)
      .launch(ScatterKernel<W, W>{data<W>(grad_rows), ends.data(), ends.size(), width, mutable_data<W>(grad_hidden)}, num_rows);
  return grad_hidden;
}

double planted(const Array<double>& values, const std::string& fault, const std::string& schedule, uint64_t seed) {
  double result = 0;
  const Fault kind = fault == "race" ? Fault::kRace : fault == "missing barrier" ? Fault::kMissingBarrier : Fault::kNone;
  plan_of(schedule, seed).launch(PlantedKernel{values.data(), &result, kind}, 1);
  return result;
}

template <typename W, typename T>
void define(py::module_& module, const char* name) {
  auto kernels = module.def_submodule(name);
  if constexpr (std::is_same_v<W, T>) kernels.def("bt_loss", &bt_loss<T>);
  kernels.def("gather", &gather<W>);
  kernels.def("norm", &norm<W, T>);
  kernels.def("norm_backward", &norm_backward<W, T>);
  kernels.def("reward", &reward<W, T>);
  kernels.def("slope", &slope<W, T>);
  kernels.def("scatter", &scatter<W>);
}

}  // namespace

PYBIND11_MODULE(basereward_shim, module) {
  define<float, float>(module, "float32");
  define<double, double>(module, "float64");
  define<torch::headeronly::BFloat16, float>(module, "bfloat16");
  define<torch::headeronly::Half, float>(module, "float16");
  module.def("planted", &planted);
}
