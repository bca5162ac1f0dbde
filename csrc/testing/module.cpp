// SPDX-License-Identifier: Apache-2.0
// The device kernels on the CPU, for pytest. Built by the tests, never shipped.

#include <optional>
#include <string>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "testing/launches.h"
#include "testing/planted.h"

namespace py = pybind11;
using namespace basereward;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
template <typename T>
using Optional = std::optional<Array<T>>;

template <typename T>
const T* data(const Optional<T>& array) {
  return array ? array->data() : nullptr;
}

Plan plan_of(const std::string& schedule, uint64_t seed) {
  const char* names[] = {"forward", "backward", "random", "greedy"};
  for (int number = 0; number < 4; ++number)
    if (schedule == names[number]) return {static_cast<simt::Schedule>(number), seed};
  throw py::value_error("schedule is forward, backward, random or greedy");
}

template <typename T>
py::tuple bt_loss(const Array<T>& rewards, const Array<int64_t>& pairs, const Optional<bool>& tie, const Optional<T>& margin,
                  const Optional<T>& weight, const Optional<int64_t>& lengths, T label_smoothing, T zero_coefficient,
                  T tie_weight, int64_t num_blocks, const std::string& schedule, uint64_t seed) {
  Array<T> loss(1), grad(rewards.size());
  Array<double> statistics(kNumStatistics);
  launch_bt_loss<T>({rewards.data(), pairs.data(), data(tie), data(margin), data(weight), data(lengths), rewards.size(),
                     pairs.shape(0), label_smoothing, zero_coefficient, tie_weight, nullptr, nullptr, loss.mutable_data(),
                     grad.mutable_data(), statistics.mutable_data()},
                    num_blocks, plan_of(schedule, seed));
  return py::make_tuple(loss, grad, statistics);
}

template <typename T>
Array<T> gather(const Array<T>& hidden, const Array<int64_t>& ends, const std::string& schedule, uint64_t seed) {
  const int64_t width = hidden.shape(2), per_batch = hidden.shape(1);
  Array<T> rows({ends.size(), static_cast<py::ssize_t>(width)});
  const RowLayout layout{per_batch, per_batch * width, width, 1, width};
  plan_of(schedule, seed).launch(GatherKernel<T, T>{hidden.data(), ends.data(), layout, rows.mutable_data()}, ends.size());
  return rows;
}

template <typename Body>
void with_activation(const std::string& name, const Body& body) {
  if (name == "none") return body(std::integral_constant<Activation, Activation::kNone>());
  if (name == "tanh") return body(std::integral_constant<Activation, Activation::kTanh>());
  if (name == "silu") return body(std::integral_constant<Activation, Activation::kSilu>());
  return body(std::integral_constant<Activation, Activation::kRelu>());
}

template <typename T>
Array<T> reward(const Array<T>& pre, const Optional<T>& bias, const Array<T>& weight, const Optional<T>& offset,
                const std::string& activation, const std::string& schedule, uint64_t seed) {
  Array<T> rewards(pre.shape(0));
  with_activation(activation, [&](auto chosen) {
    plan_of(schedule, seed)
        .launch(RewardKernel<decltype(chosen)::value, T, T>{pre.data(), data(bias), weight.data(), data(offset), weight.size(),
                                                            rewards.mutable_data()},
                pre.shape(0));
  });
  return rewards;
}

template <typename T>
py::tuple slope(const Array<T>& grad, const Array<T>& pre, const Optional<T>& bias, const Array<T>& weight,
                const std::string& activation, const std::string& schedule, uint64_t seed) {
  Array<T> grad_pre({pre.shape(0), pre.shape(1)}), grad_bias(weight.size()), grad_weight(weight.size()), grad_offset(1);
  with_activation(activation, [&](auto chosen) {
    plan_of(schedule, seed)
        .launch(SlopeKernel<decltype(chosen)::value, T, T>{grad.data(), pre.data(), data(bias), weight.data(), pre.shape(0),
                                                           weight.size(), grad_pre.mutable_data(), grad_bias.mutable_data(),
                                                           grad_weight.mutable_data(), grad_offset.mutable_data()},
                std::max<int64_t>(1, blocks_of(weight.size())));
  });
  return py::make_tuple(grad_pre, grad_bias, grad_weight, grad_offset);
}

template <typename T>
Array<T> scatter(const Array<T>& grad_rows, const Array<int64_t>& ends, int64_t num_rows, const std::string& schedule,
                 uint64_t seed) {
  const int64_t width = grad_rows.shape(1);
  Array<T> grad_hidden({num_rows, width});
  plan_of(schedule, seed)
      .launch(ScatterKernel<T, T>{grad_rows.data(), ends.data(), ends.size(), width, grad_hidden.mutable_data()}, num_rows);
  return grad_hidden;
}

double planted(const Array<double>& values, const std::string& fault, const std::string& schedule, uint64_t seed) {
  double result = 0;
  const Fault kind = fault == "race" ? Fault::kRace : fault == "missing barrier" ? Fault::kMissingBarrier : Fault::kNone;
  plan_of(schedule, seed).launch(PlantedKernel{values.data(), &result, kind}, 1);
  return result;
}

template <typename T>
void define(py::module_& module) {
  module.def("bt_loss", &bt_loss<T>);
  module.def("gather", &gather<T>);
  module.def("reward", &reward<T>);
  module.def("slope", &slope<T>);
  module.def("scatter", &scatter<T>);
}

}  // namespace

PYBIND11_MODULE(basereward_shim, module) {
  auto single = module.def_submodule("float32");
  define<float>(single);
  auto twice = module.def_submodule("float64");
  define<double>(twice);
  module.def("planted", &planted);
}
