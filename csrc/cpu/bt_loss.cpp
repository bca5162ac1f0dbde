// SPDX-License-Identifier: Apache-2.0
// The Bradley-Terry loss of P pairs of N rewards: loss, gradient and statistics in one pass.
//
// With s = 1 / log(length + 1) (1 without lengths), a = s_c r_c, b = s_r r_r and m = a - b - margin, a pair's loss is
//     (1 - e) softplus(-m) + e softplus(m) + z (a + b)^2  =  softplus(-m) + e m + z (a + b)^2,
// its derivatives are
//     d/da = e - sigmoid(-m) + 2 z (a + b),    d/db = -(e - sigmoid(-m)) + 2 z (a + b),
// and the loss is the mean over pairs weighted by w. One t = exp(-|m|) serves softplus and sigmoid. A tie has no margin and
// e = 1/2, or no weight.
//
// Pairs go through in blocks of fixed size, and the blocks' sums and gradients are added in their order: the result does
// not depend on the number of threads.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include <basereward/cpu/simd.h>

#include "arguments.h"
#include "ops.h"

namespace basereward {
namespace {

constexpr int64_t kBlock = 512;       // pairs whose values fit the first-level cache
constexpr int64_t kGroup = 64;        // blocks between two rounds of adding up gradients
constexpr int64_t kBlocksPerTask = 16;  // less isn't worth waking a thread
constexpr int64_t kNumStatistics = 9;

// One block's pairs, gathered.
template <typename T>
struct Block {
  alignas(64) T chosen[kBlock];
  alignas(64) T rejected[kBlock];
  alignas(64) T chosen_scale[kBlock];
  alignas(64) T rejected_scale[kBlock];
  alignas(64) T margin[kBlock];
  alignas(64) T weight[kBlock];
  alignas(64) T smoothing[kBlock];
  alignas(64) T counts[kBlock];  // 1, or 0 for a tie
};

struct Sums {
  double loss = 0, correct = 0, margin = 0, margin_squared = 0, chosen = 0, rejected = 0, pairs = 0;

  void operator+=(const Sums& other) {
    loss += other.loss;
    correct += other.correct;
    margin += other.margin;
    margin_squared += other.margin_squared;
    chosen += other.chosen;
    rejected += other.rejected;
    pairs += other.pairs;
  }
};

template <typename T>
struct Arguments {
  const T* rewards;        // [N]
  const int64_t* pairs;    // [P, 2]
  const bool* tie;         // [P] or null
  const T* margin;         // [P] or null
  const T* weight;         // [P] or null
  const int64_t* lengths;  // [N] or null
  int64_t num_rewards, num_pairs;
  T label_smoothing, zero_coefficient, tie_weight;
};

template <typename T>
BASEREWARD_INLINE Sums loss_of_block(const Block<T>& block, int64_t size, T zero_coefficient, T per_weight, T* toward_chosen,
                                     T* toward_rejected) {
  double loss = 0, correct = 0, margins = 0, margins_squared = 0, chosen = 0, rejected = 0, pairs = 0;
#pragma omp simd reduction(+ : loss, correct, margins, margins_squared, chosen, rejected, pairs)
  for (int64_t i = 0; i < size; ++i) {
    const T a = block.chosen[i] * block.chosen_scale[i];
    const T b = block.rejected[i] * block.rejected_scale[i];
    const T m = a - b - block.margin[i];
    const T t = simd::exp_minus(std::abs(m));
    // Written so that a NaN reaches both the loss and the gradient.
    const T softplus = (m > 0 ? T(0) : -m) + simd::log1p_unit(t);
    const T sigmoid = (m > 0 ? t : T(1)) / (T(1) + t);
    const T pull = block.smoothing[i] - sigmoid;
    const T both = zero_coefficient * (a + b);
    const T weight = block.weight[i];
    loss += static_cast<double>(weight * (softplus + block.smoothing[i] * m + both * (a + b)));
    toward_chosen[i] = weight * per_weight * block.chosen_scale[i] * (2 * both + pull);
    toward_rejected[i] = weight * per_weight * block.rejected_scale[i] * (2 * both - pull);

    const T counts = block.counts[i];
    const double difference = static_cast<double>(block.chosen[i]) - static_cast<double>(block.rejected[i]);
    const T right = block.chosen[i] > block.rejected[i] ? T(1) : (block.chosen[i] == block.rejected[i] ? T(0.5) : T(0));
    correct += static_cast<double>(counts * right);
    margins += static_cast<double>(counts) * difference;
    margins_squared += static_cast<double>(counts) * difference * difference;
    chosen += static_cast<double>(counts * block.chosen[i]);
    rejected += static_cast<double>(counts * block.rejected[i]);
    pairs += static_cast<double>(counts);
  }
  return {loss, correct, margins, margins_squared, chosen, rejected, pairs};
}

// What is wrong with a block's values, if anything.
enum class Fault : int { kNone, kPairs, kMargin, kWeight, kLengths };

// Copies a block's values together; refuses those that would read outside the rewards or make the loss meaningless.
template <typename T>
BASEREWARD_INLINE Fault gather_block(const Arguments<T>& arguments, int64_t begin, int64_t size, Block<T>& block) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  const int64_t* pairs = arguments.pairs + 2 * begin;
  int64_t low = 0, high = -1;
#pragma omp simd reduction(min : low) reduction(max : high)
  for (int64_t i = 0; i < 2 * size; ++i) {
    low = pairs[i] < low ? pairs[i] : low;
    high = pairs[i] > high ? pairs[i] : high;
  }
  if (low < 0 || high >= arguments.num_rewards) return Fault::kPairs;
  for (int64_t i = 0; i < size; ++i) {
    block.chosen[i] = arguments.rewards[pairs[2 * i]];
    block.rejected[i] = arguments.rewards[pairs[2 * i + 1]];
  }

  std::fill(block.chosen_scale, block.chosen_scale + size, T(1));
  std::fill(block.rejected_scale, block.rejected_scale + size, T(1));
  if (arguments.lengths != nullptr) {
    T shortest = 1;
    for (int64_t i = 0; i < size; ++i) {
      block.chosen_scale[i] = static_cast<T>(arguments.lengths[pairs[2 * i]]);
      block.rejected_scale[i] = static_cast<T>(arguments.lengths[pairs[2 * i + 1]]);
    }
#pragma omp simd reduction(min : shortest)
    for (int64_t i = 0; i < size; ++i) {
      shortest = block.chosen_scale[i] < shortest ? block.chosen_scale[i] : shortest;
      shortest = block.rejected_scale[i] < shortest ? block.rejected_scale[i] : shortest;
      block.chosen_scale[i] = T(1) / simd::log_positive(block.chosen_scale[i] + T(1));
      block.rejected_scale[i] = T(1) / simd::log_positive(block.rejected_scale[i] + T(1));
    }
    if (shortest < 1) return Fault::kLengths;
  }

  std::fill(block.margin, block.margin + size, T(0));
  if (arguments.margin != nullptr) {
    int finite = 1;
#pragma omp simd reduction(& : finite)
    for (int64_t i = 0; i < size; ++i) {
      block.margin[i] = arguments.margin[begin + i];
      finite &= std::abs(block.margin[i]) < kInfinity;
    }
    if (!finite) return Fault::kMargin;
  }

  std::fill(block.weight, block.weight + size, T(1));
  if (arguments.weight != nullptr) {
    int finite = 1;
#pragma omp simd reduction(& : finite)
    for (int64_t i = 0; i < size; ++i) {
      block.weight[i] = arguments.weight[begin + i];
      finite &= (block.weight[i] >= 0) & (block.weight[i] < kInfinity);
    }
    if (!finite) return Fault::kWeight;
  }

  std::fill(block.smoothing, block.smoothing + size, arguments.label_smoothing);
  std::fill(block.counts, block.counts + size, T(1));
  if (arguments.tie != nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      const bool tie = arguments.tie[begin + i];
      block.margin[i] = tie ? T(0) : block.margin[i];
      block.weight[i] = tie ? block.weight[i] * arguments.tie_weight : block.weight[i];
      block.smoothing[i] = tie ? T(0.5) : block.smoothing[i];
      block.counts[i] = tie ? T(0) : T(1);
    }
  }
  return Fault::kNone;
}

template <typename T>
BASEREWARD_INLINE double weight_of_pairs(const Arguments<T>& arguments) {
  double total = 0;
  if (arguments.weight == nullptr && arguments.tie == nullptr) return static_cast<double>(arguments.num_pairs);
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < arguments.num_pairs; ++i) {
    const T weight = arguments.weight == nullptr ? T(1) : arguments.weight[i];
    const bool tie = arguments.tie != nullptr && arguments.tie[i];
    total += static_cast<double>(tie ? weight * arguments.tie_weight : weight);
  }
  return total;
}

// The functions with loops, compiled once for each instruction set.
BASEREWARD_CLONES Fault run_block(const Arguments<float>& arguments, int64_t begin, int64_t size, float per_weight,
                                  float* toward_chosen, float* toward_rejected, Sums& sums) {
  Block<float> block;
  const Fault fault = gather_block(arguments, begin, size, block);
  if (fault == Fault::kNone)
    sums = loss_of_block(block, size, arguments.zero_coefficient, per_weight, toward_chosen, toward_rejected);
  return fault;
}

Fault run_block(const Arguments<double>& arguments, int64_t begin, int64_t size, double per_weight,
                double* toward_chosen, double* toward_rejected, Sums& sums) {
  Block<double> block;
  const Fault fault = gather_block(arguments, begin, size, block);
  if (fault == Fault::kNone)
    sums = loss_of_block(block, size, arguments.zero_coefficient, per_weight, toward_chosen, toward_rejected);
  return fault;
}

BASEREWARD_CLONES double total_weight(const Arguments<float>& arguments) { return weight_of_pairs(arguments); }
double total_weight(const Arguments<double>& arguments) { return weight_of_pairs(arguments); }

void refuse(Fault fault, int64_t num_rewards) {
  STD_TORCH_CHECK(fault != Fault::kPairs, "pairs holds an index outside the ", num_rewards, " rewards");
  STD_TORCH_CHECK(fault != Fault::kMargin, "margin holds a value that is not finite");
  STD_TORCH_CHECK(fault != Fault::kWeight, "weight holds a value that is negative or not finite");
  STD_TORCH_CHECK(fault != Fault::kLengths, "lengths holds a value below 1");
}

template <typename T>
void run(const Arguments<T>& arguments, T* loss, T* grad, double* statistics) {
  const int64_t num_pairs = arguments.num_pairs;
  const double weight = total_weight(arguments);
  // All weights zero is a loss of zero, not 0 / 0.
  const double per_weight = weight > 0 ? 1.0 / weight : 0.0;

  const int64_t room = std::min(num_pairs, kGroup * kBlock);
  std::unique_ptr<T[]> toward_chosen(new T[room]), toward_rejected(new T[room]);
  std::vector<Sums> sums(static_cast<size_t>((room + kBlock - 1) / kBlock));
  std::fill(grad, grad + arguments.num_rewards, T(0));
  std::atomic<int> fault{0};
  Sums total;
  for (int64_t start = 0; start < num_pairs; start += kGroup * kBlock) {
    const int64_t stop = std::min(num_pairs, start + kGroup * kBlock);
    const int64_t num_blocks = (stop - start + kBlock - 1) / kBlock;
    const auto run_blocks = [&](int64_t first, int64_t last) {
      for (int64_t number = first; number < last; ++number) {
        const int64_t offset = number * kBlock;
        const Fault found = run_block(arguments, start + offset, std::min(kBlock, stop - start - offset),
                                      static_cast<T>(per_weight), toward_chosen.get() + offset,
                                      toward_rejected.get() + offset, sums[static_cast<size_t>(number)]);
        // An exception must not leave the thread that runs this; which of several faults is told doesn't matter.
        if (found != Fault::kNone) fault.store(static_cast<int>(found), std::memory_order_relaxed);
      }
    };
    if (num_blocks <= kBlocksPerTask)
      run_blocks(0, num_blocks);
    else
      torch::stable::parallel_for(0, num_blocks, kBlocksPerTask, run_blocks);
    refuse(static_cast<Fault>(fault.load()), arguments.num_rewards);
    for (int64_t number = 0; number < num_blocks; ++number) total += sums[static_cast<size_t>(number)];
    // A response stands in many pairs, so its gradient is added up here, in the order of the pairs.
    for (int64_t i = 0; i < stop - start; ++i) {
      grad[arguments.pairs[2 * (start + i)]] += toward_chosen[i];
      grad[arguments.pairs[2 * (start + i) + 1]] += toward_rejected[i];
    }
  }

  T low = std::numeric_limits<T>::infinity(), high = -low;
#pragma omp simd reduction(min : low) reduction(max : high)
  for (int64_t i = 0; i < arguments.num_rewards; ++i) {
    low = arguments.rewards[i] < low ? arguments.rewards[i] : low;
    high = arguments.rewards[i] > high ? arguments.rewards[i] : high;
  }
  *loss = static_cast<T>(total.loss * per_weight);
  const double values[kNumStatistics] = {weight,         total.correct,  total.margin, total.margin_squared, total.chosen,
                                         total.rejected, static_cast<double>(low), static_cast<double>(high), total.pairs};
  std::copy(values, values + kNumStatistics, statistics);
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> dispatch(const Tensor& given_rewards, const Tensor& given_pairs,
                                            const std::optional<Tensor>& given_tie, const std::optional<Tensor>& given_margin,
                                            const std::optional<Tensor>& given_weight,
                                            const std::optional<Tensor>& given_lengths, double label_smoothing,
                                            double zero_coefficient, double tie_weight) {
  const int64_t num_rewards = given_rewards.size(0), num_pairs = given_pairs.size(0);
  const Tensor rewards = as_contiguous(given_rewards), pairs = as_contiguous(given_pairs);
  const std::optional<Tensor> tie = as_contiguous(given_tie), margin = as_contiguous(given_margin),
                              weight = as_contiguous(given_weight), lengths = as_contiguous(given_lengths);

  Tensor loss = torch::stable::new_empty(rewards, {});
  Tensor grad = torch::stable::new_empty(rewards, {num_rewards});
  Tensor statistics = torch::stable::new_empty(rewards, {kNumStatistics}, ScalarType::Double);
  run<T>({data<T>(rewards), data<int64_t>(pairs), data<bool>(tie), data<T>(margin), data<T>(weight), data<int64_t>(lengths),
          num_rewards, num_pairs, static_cast<T>(label_smoothing), static_cast<T>(zero_coefficient),
          static_cast<T>(tie_weight)},
         mutable_data<T>(loss), mutable_data<T>(grad), mutable_data<double>(statistics));
  return {loss, grad, statistics};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> batched_bt_loss(Tensor rewards, Tensor pairs, std::optional<Tensor> tie,
                                                   std::optional<Tensor> margin, std::optional<Tensor> weight,
                                                   std::optional<Tensor> lengths, double label_smoothing,
                                                   double zero_coefficient, double tie_weight) {
  check_bt_loss(rewards, pairs, tie, margin, weight, lengths);
  const auto call = rewards.scalar_type() == ScalarType::Double ? dispatch<double> : dispatch<float>;
  return call(rewards, pairs, tie, margin, weight, lengths, label_smoothing, zero_coefficient, tie_weight);
}

namespace {

Tensor dot(const Tensor& a, const Tensor& b) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(a), torch::stable::detail::from(b)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::dot", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// The stable interface has no rules of differentiation. But the derivative of rewards . gradient is the gradient, by a node
// of torch's own; it keeps nothing of its value, in whose place the loss is written.
std::tuple<Tensor, Tensor> bt_loss_on_cpu(Tensor rewards, Tensor pairs, std::optional<Tensor> tie,
                                          std::optional<Tensor> margin, std::optional<Tensor> weight,
                                          std::optional<Tensor> lengths, double label_smoothing, double zero_coefficient,
                                          double tie_weight, bool differentiable) {
  STD_TORCH_CHECK(rewards.is_cpu(), "rewards is not on the CPU");
  Tensor loss, grad, statistics;
  std::tie(loss, grad, statistics) =
      batched_bt_loss(rewards, pairs, tie, margin, weight, lengths, label_smoothing, zero_coefficient, tie_weight);
  if (!differentiable) return {loss, statistics};
  const Tensor tied = dot(rewards, grad);
  if (rewards.scalar_type() == ScalarType::Double)
    *mutable_data<double>(tied) = *data<double>(loss);
  else
    *mutable_data<float>(tied) = *data<float>(loss);
  return {tied, statistics};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(basereward, CPU, library) { library.impl("batched_bt_loss", TORCH_BOX(&batched_bt_loss)); }
STABLE_TORCH_LIBRARY_IMPL(basereward, CompositeImplicitAutograd, library) {
  library.impl("bt_loss_on_cpu", TORCH_BOX(&bt_loss_on_cpu));
}

}  // namespace basereward
