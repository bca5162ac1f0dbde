// SPDX-License-Identifier: Apache-2.0
// The Bradley-Terry loss of P pairs of N rewards in three kernels, without atomics.
//
// With s = 1 / log(length + 1) (1 without lengths), a = s_c r_c, b = s_r r_r and m = a - b - margin, a pair's loss is
//     softplus(-m) + e m + z (a + b)^2,  d/da = e - sigmoid(-m) + 2 z (a + b),  d/db = -(e - sigmoid(-m)) + 2 z (a + b).
// A tie has no margin and e = 1/2, or no weight.
//
// PairKernel computes each pair and one row of partial sums a block; TotalKernel, one block, adds the rows up and divides;
// GradientKernel collects, for each response, the gradients of its pairs in their order, and divides by the weight; where
// there are few, ScanKernel does, which looks for them among all pairs and needs no sorting.
#pragma once

#include <basereward/kernels/math.h>
#include <basereward/kernels/reduce.cuh>

namespace basereward {

constexpr int kNumStatistics = 9;
constexpr int kNumSums = 8;  // loss, weight, correct, margin, margin squared, chosen, rejected, pairs

template <typename T>
struct BTLoss {
  const T* rewards;        // [N]
  const int64_t* pairs;    // [P, 2]
  const bool* tie;         // [P] or null
  const T* margin;         // [P] or null
  const T* weight;         // [P] or null
  const int64_t* lengths;  // [N] or null
  int64_t num_rewards, num_pairs;
  T label_smoothing, zero_coefficient, tie_weight;
  double* partial;     // [blocks, kNumSums]
  T* toward;           // [P, 2] gradients times the total weight
  T* loss;             // []
  T* grad;             // [N]
  double* statistics;  // [kNumStatistics]
};

template <typename T>
struct PairKernel {
  static constexpr size_t kArenaBytes = simt::kNumWarps * sizeof(double);
  BTLoss<T> p;

  BASEREWARD_DEVICE static T scale(int64_t length) {
    using std::log;
    return T(1) / log(static_cast<T>(length) + T(1));
  }

  BASEREWARD_DEVICE bool is_reward(int64_t n) const { return n >= 0 && n < p.num_rewards; }

  BASEREWARD_DEVICE void operator()() const {
    double sums[kNumSums] = {};
    const int64_t stride = simt::num_blocks() * simt::kNumThreads;
    for (int64_t i = simt::block() * simt::kNumThreads + simt::thread(); i < p.num_pairs; i += stride) {
      const int64_t chosen = p.pairs[2 * i], rejected = p.pairs[2 * i + 1];
      const bool tie = p.tie != nullptr && p.tie[i];
      const T given = p.weight == nullptr ? T(1) : p.weight[i];
      const T weight = tie ? given * p.tie_weight : given;
      const T margin = tie || p.margin == nullptr ? T(0) : p.margin[i];
      const T smoothing = tie ? T(0.5) : p.label_smoothing;
      // Of an index that is none the reward is NaN: an error could only be told after waiting for the device.
      const bool has_chosen = is_reward(chosen), has_rejected = is_reward(rejected);
      const T first = has_chosen ? p.rewards[chosen] : static_cast<T>(NAN);
      const T second = has_rejected ? p.rewards[rejected] : static_cast<T>(NAN);
      const T first_scale = p.lengths == nullptr || !has_chosen ? T(1) : scale(p.lengths[chosen]);
      const T second_scale = p.lengths == nullptr || !has_rejected ? T(1) : scale(p.lengths[rejected]);
      const T a = first * first_scale, b = second * second_scale, m = a - b - margin;
      const Softplus<T> lost = softplus(-m);
      const T pull = smoothing - lost.slope, both = p.zero_coefficient * (a + b);
      p.toward[2 * i] = weight * first_scale * (2 * both + pull);
      p.toward[2 * i + 1] = weight * second_scale * (2 * both - pull);

      const double counts = tie ? 0.0 : 1.0, difference = static_cast<double>(first) - static_cast<double>(second);
      sums[0] += static_cast<double>(weight * (lost.value + smoothing * m + both * (a + b)));
      sums[1] += static_cast<double>(weight);
      sums[2] += counts * (first > second ? 1.0 : (first == second ? 0.5 : 0.0));
      sums[3] += counts * difference;
      sums[4] += counts * difference * difference;
      sums[5] += counts * static_cast<double>(first);
      sums[6] += counts * static_cast<double>(second);
      sums[7] += counts;
    }
    // Unrolled, the sums stay in registers.
    BASEREWARD_UNROLL
    for (int k = 0; k < kNumSums; ++k) {
      const double total = reduce_block<Sum>(sums[k], 0.0, simt::arena());
      if (simt::thread() == 0) p.partial[simt::block() * kNumSums + k] = total;
    }
  }
};

template <typename T>
struct TotalKernel {
  static constexpr size_t kArenaBytes = simt::kNumWarps * sizeof(double);
  BTLoss<T> p;
  int64_t num_rows;

  BASEREWARD_DEVICE void operator()() const {
    double totals[kNumSums];
    BASEREWARD_UNROLL
    for (int k = 0; k < kNumSums; ++k) {
      double sum = 0;
      for (int64_t row = simt::thread(); row < num_rows; row += simt::kNumThreads) sum += p.partial[row * kNumSums + k];
      totals[k] = reduce_block<Sum>(sum, 0.0, simt::arena());
    }
    double low = INFINITY, high = -INFINITY;
    for (int64_t n = simt::thread(); n < p.num_rewards; n += simt::kNumThreads) {
      low = Least::of(low, static_cast<double>(p.rewards[n]));
      high = Greatest::of(high, static_cast<double>(p.rewards[n]));
    }
    low = reduce_block<Least>(low, static_cast<double>(INFINITY), simt::arena());
    high = reduce_block<Greatest>(high, -static_cast<double>(INFINITY), simt::arena());
    if (simt::thread() != 0) return;
    // All weights zero is a loss of zero, not 0 / 0.
    *p.loss = static_cast<T>(totals[1] > 0 ? totals[0] / totals[1] : 0.0);
    p.statistics[0] = totals[1];
    BASEREWARD_UNROLL
    for (int k = 1; k < 6; ++k) p.statistics[k] = totals[k + 1];
    p.statistics[6] = low;
    p.statistics[7] = high;
    p.statistics[8] = totals[7];
  }
};

// What sums of gradients are multiplied by; all weights zero is a loss of zero.
template <typename T>
BASEREWARD_DEVICE T share_of(double weight) {
  return static_cast<T>(weight > 0 ? 1.0 / weight : 0.0);
}

// A block for each response.
template <typename T>
struct ScanKernel {
  static constexpr size_t kArenaBytes = simt::kNumWarps * sizeof(double);
  BTLoss<T> p;

  BASEREWARD_DEVICE void operator()() const {
    const int64_t n = simt::block();
    T sum = 0;
    for (int64_t i = simt::thread(); i < 2 * p.num_pairs; i += simt::kNumThreads)
      if (p.pairs[i] == n) sum += p.toward[i];
    sum = reduce_block<Sum>(sum, T(0), reinterpret_cast<T*>(simt::arena()));
    if (simt::thread() == 0) p.grad[n] = sum * share_of<T>(p.statistics[0]);
  }
};

template <typename T>
struct GradientKernel {
  static constexpr size_t kArenaBytes = 0;
  BTLoss<T> p;
  const int64_t* order;  // [2 P] places in `pairs`, stably sorted by the response that stands there

  // The first place in `order` whose response is n or a later one.
  BASEREWARD_DEVICE int64_t first_of(int64_t n) const {
    int64_t low = 0, high = 2 * p.num_pairs;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (p.pairs[order[middle]] < n)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  BASEREWARD_DEVICE void operator()() const {
    const T share = share_of<T>(p.statistics[0]);
    const int64_t stride = simt::num_blocks() * simt::kNumThreads;
    for (int64_t n = simt::block() * simt::kNumThreads + simt::thread(); n < p.num_rewards; n += stride) {
      T sum = 0;
      for (int64_t i = first_of(n); i < 2 * p.num_pairs && p.pairs[order[i]] == n; ++i) sum += p.toward[order[i]];
      p.grad[n] = sum * share;
    }
  }
};

}  // namespace basereward
