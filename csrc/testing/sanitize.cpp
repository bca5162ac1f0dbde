// SPDX-License-Identifier: Apache-2.0
// Runs every kernel on buffers of exactly the size it may touch, to be built with -fsanitize=address,undefined. With the
// argument `out-of-bounds` it runs a kernel that reads one value too many, which has to be found.

#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "testing/launches.h"
#include "testing/planted.h"

using namespace basereward;

namespace {

// A vector<bool> has no array of bool, so ties are bytes.
void run_bt_loss(int64_t num_rewards, int64_t num_pairs, bool options, bool sorts, const simt::Plan& plan, bool has_wrong_indices = false) {
  std::mt19937_64 random(static_cast<uint64_t>(num_rewards * 7919 + num_pairs));
  std::vector<float> rewards(static_cast<size_t>(num_rewards), 0.5f), values(static_cast<size_t>(num_pairs), 0.25f);
  std::vector<int64_t> pairs(static_cast<size_t>(2 * num_pairs)), lengths(static_cast<size_t>(num_rewards), 3);
  std::unique_ptr<bool[]> tie(new bool[static_cast<size_t>(num_pairs)]());
  for (int64_t& place : pairs) place = static_cast<int64_t>(random() % static_cast<uint64_t>(num_rewards));
  if (has_wrong_indices) pairs[0] = num_rewards, pairs[1] = -1;
  std::vector<float> loss(1), grad(static_cast<size_t>(num_rewards));
  std::vector<double> statistics(kNumStatistics);
  launch_bt_loss<float>({rewards.data(), pairs.data(), options ? tie.get() : nullptr, options ? values.data() : nullptr,
                         options ? values.data() : nullptr, options ? lengths.data() : nullptr, num_rewards, num_pairs, 0.1f,
                         0.01f, 1.0f, nullptr, nullptr, loss.data(), grad.data(), statistics.data()},
                        3, sorts, plan);
}

void run_head(int64_t num_responses, int64_t num_rows, int64_t width, const simt::Plan& plan, bool has_wrong_indices = false) {
  const auto room = [](int64_t size) { return std::vector<float>(static_cast<size_t>(size), 0.5f); };
  std::vector<float> hidden = room(num_rows * width), rows = room(num_responses * width), pre = room(num_responses * width);
  std::vector<float> bias = room(width), weight = room(width), offset = room(1), rewards = room(num_responses);
  std::vector<float> grad_pre = room(num_responses * width), grad_bias = room(width), grad_weight = room(width);
  std::vector<int64_t> ends;
  for (int64_t n = 0; n < num_responses; ++n) ends.push_back(num_rows - 1 - n);
  if (has_wrong_indices) ends[0] = num_rows, ends[1] = -1;
  const RowLayout layout{num_rows, 0, width, 1, width};
  plan.launch(GatherKernel<float, float>{hidden.data(), ends.data(), num_rows, layout, rows.data()}, num_responses);
  std::vector<float> normed = room(num_responses * width), scale = room(num_responses), grad_norm = room(width);
  plan.launch(NormKernel<float, float>{rows.data(), weight.data(), width, 1e-6f, normed.data(), scale.data()}, num_responses);
  plan.launch(NormRowsKernel<float, float>{normed.data(), rows.data(), weight.data(), scale.data(), width, pre.data()},
              num_responses);
  launch_norm_weight<float, float>(normed.data(), rows.data(), scale.data(), num_responses, width, grad_norm.data(), plan);
  plan.launch(RewardKernel<Activation::kSilu, float, float>{pre.data(), bias.data(), weight.data(), offset.data(), width,
                                                            rewards.data()},
              num_responses);
  launch_slope<Activation::kTanh, float, float>(rewards.data(), pre.data(), bias.data(), weight.data(), num_responses, width,
                                                grad_pre.data(), grad_bias.data(), grad_weight.data(), offset.data(), plan);
  plan.launch(ScatterKernel<float, float>{rows.data(), ends.data(), num_responses, width, hidden.data()}, num_rows);
}

}  // namespace

int main(int argc, char** argv) {
  const bool plant = argc > 1 && std::strcmp(argv[1], "out-of-bounds") == 0;
  for (const auto schedule : {simt::Schedule::kForward, simt::Schedule::kGreedy}) {
    const simt::Plan plan{schedule, 1};
    if (plant) {
      std::vector<double> values(simt::kNumThreads, 1.0);
      double result = 0;
      plan.launch(PlantedKernel{values.data(), &result, Fault::kOutOfBounds}, 1);
      std::printf("%g\n", result);
      continue;
    }
    for (const int64_t num_pairs : {0, 1, 31, 257, 1500})
      for (const bool options : {false, true})
        for (const bool sorts : {false, true}) run_bt_loss(33, num_pairs, options, sorts, plan);
    for (const int64_t width : {1, 31, 257})
      for (const int64_t num_responses : {5, 11}) run_head(num_responses, 12, width, plan);
    for (const bool sorts : {false, true}) run_bt_loss(33, 31, true, sorts, plan, true);
    run_head(5, 12, 31, plan, true);
  }
  return 0;
}
