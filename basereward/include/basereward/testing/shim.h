// SPDX-License-Identifier: Apache-2.0
// Runs the kernels on the CPU, one fiber a thread, one block after another, under a chosen schedule.
//
// A lane gives way only at a barrier or a shuffle. In lock step all lanes go from one to the next of these together, forward,
// backward or in random order. A greedy schedule runs one warp, chosen at random, as far as it can come, which shows a
// missing barrier that lock step hides. Shared memory is NaN at the start of each block.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

namespace basereward::simt {

enum class Schedule { kForward, kBackward, kRandom, kGreedy };

struct Lane {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  int64_t barriers = 0;   // block-wide barriers passed
  int64_t exchanges = 0;  // warp-wide ones
  bool done = false;
};

class Block {
 public:
  static constexpr int kLanes = 256;
  static constexpr int kLanesPerWarp = 32;
  static constexpr size_t kStackBytes = 64 << 10;

  Block(int64_t number, int64_t count, size_t arena_bytes, Schedule schedule, uint64_t seed)
      : number(number), count(count), arena(arena_bytes / sizeof(double) + 1), slots(kLanes), lanes_(kLanes), schedule_(schedule),
        random_(seed + static_cast<uint64_t>(number)) {
    std::memset(arena.data(), 0xff, arena.size() * sizeof(double));  // every bit set is NaN in float and in double
  }

  template <typename Kernel>
  void run(const Kernel& kernel) {
    current = this;
    body_ = [](const void* kernel) { (*static_cast<const Kernel*>(kernel))(); };
    kernel_ = &kernel;
    for (Lane& lane : lanes_) {
      getcontext(&lane.context);
      lane.stack.reset(new char[kStackBytes]);
      lane.context.uc_stack.ss_sp = lane.stack.get();
      lane.context.uc_stack.ss_size = kStackBytes;
      lane.context.uc_link = nullptr;
      makecontext(&lane.context, &Block::enter, 0);
    }
    schedule_ == Schedule::kGreedy ? run_greedy() : run_in_step();
    current = nullptr;
  }

  void barrier() {
    ++lanes_[static_cast<size_t>(lane)].barriers;
    give_way();
  }

  // Waits for the other lanes of the warp.
  void exchange() {
    ++lanes_[static_cast<size_t>(lane)].exchanges;
    give_way();
  }

  static inline thread_local Block* current = nullptr;
  int64_t number, count;
  int lane = 0;
  std::vector<double> arena;
  std::vector<double> slots;  // what a shuffle passes on

 private:
  static void enter() {
    Block& block = *current;
    block.body_(block.kernel_);
    block.lanes_[static_cast<size_t>(block.lane)].done = true;
    setcontext(&block.scheduler_);
  }

  void give_way() { swapcontext(&lanes_[static_cast<size_t>(lane)].context, &scheduler_); }

  void resume(int which) {
    lane = which;
    swapcontext(&scheduler_, &lanes_[static_cast<size_t>(which)].context);
  }

  bool all_done() const {
    for (const Lane& lane : lanes_)
      if (!lane.done) return false;
    return true;
  }

  // A lane may go on when no lane of its block has passed fewer barriers, and none of its warp fewer shuffles.
  std::vector<int> runnable(int begin, int end) const {
    int64_t fewest_barriers = INT64_MAX;
    for (const Lane& lane : lanes_)
      if (!lane.done) fewest_barriers = std::min(fewest_barriers, lane.barriers);
    std::vector<int> found;
    for (int first = begin; first < end; first += kLanesPerWarp) {
      int64_t fewest_exchanges = INT64_MAX;
      const auto waits = [&](int which) {
        const Lane& lane = lanes_[static_cast<size_t>(which)];
        return !lane.done && lane.barriers == fewest_barriers;
      };
      for (int which = first; which < first + kLanesPerWarp; ++which)
        if (waits(which)) fewest_exchanges = std::min(fewest_exchanges, lanes_[static_cast<size_t>(which)].exchanges);
      for (int which = first; which < first + kLanesPerWarp; ++which)
        if (waits(which) && lanes_[static_cast<size_t>(which)].exchanges == fewest_exchanges) found.push_back(which);
    }
    return found;
  }

  void order(std::vector<int>& lanes) {
    if (schedule_ == Schedule::kBackward) std::reverse(lanes.begin(), lanes.end());
    if (schedule_ == Schedule::kRandom) std::shuffle(lanes.begin(), lanes.end(), random_);
  }

  void run_in_step() {
    while (!all_done()) {
      std::vector<int> ready = runnable(0, kLanes);
      if (ready.empty()) throw std::runtime_error("no lane can go on: a barrier or shuffle isn't reached by all");
      order(ready);
      for (int which : ready) resume(which);
    }
  }

  void run_greedy() {
    while (!all_done()) {
      std::vector<int> warps;
      for (int warp = 0; warp < kLanes / kLanesPerWarp; ++warp)
        if (!runnable(warp * kLanesPerWarp, (warp + 1) * kLanesPerWarp).empty()) warps.push_back(warp);
      if (warps.empty()) throw std::runtime_error("no lane can go on: a barrier or shuffle isn't reached by all");
      const int warp = warps[random_() % warps.size()];
      for (;;) {
        const std::vector<int> ready = runnable(warp * kLanesPerWarp, (warp + 1) * kLanesPerWarp);
        if (ready.empty()) break;
        for (int which : ready) resume(which);
      }
    }
  }

  std::vector<Lane> lanes_;
  Schedule schedule_;
  std::mt19937_64 random_;
  ucontext_t scheduler_;
  void (*body_)(const void*) = nullptr;
  const void* kernel_ = nullptr;
};

inline int thread() { return Block::current->lane; }
inline int64_t block() { return Block::current->number; }
inline int64_t num_blocks() { return Block::current->count; }
inline void barrier() { Block::current->barrier(); }
inline double* arena() { return Block::current->arena.data(); }

template <typename T>
inline T shuffle_down(T value, int offset) {
  Block& block = *Block::current;
  block.slots[static_cast<size_t>(block.lane)] = static_cast<double>(value);
  block.exchange();
  const int partner = block.lane + offset;
  const bool inside = partner / Block::kLanesPerWarp == block.lane / Block::kLanesPerWarp;
  const T found = inside ? static_cast<T>(block.slots[static_cast<size_t>(partner)]) : value;
  block.exchange();
  return found;
}

// A schedule and the seed of what is random in it.
struct Plan {
  Schedule schedule;
  uint64_t seed;

  // Runs a kernel on so many blocks.
  template <typename Kernel>
  void launch(const Kernel& kernel, int64_t num_blocks) const {
    for (int64_t number = 0; number < num_blocks; ++number)
      Block(number, num_blocks, Kernel::kArenaBytes, schedule, seed).run(kernel);
  }
};

}  // namespace basereward::simt
