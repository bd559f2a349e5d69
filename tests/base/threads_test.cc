// Tests of the start of threads: each runs its number, and a system that gives no more is told of.
#include "base/threads.h"

#include <atomic>
#include <cstdlib>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/few_threads.h"

namespace shoestring {
namespace {

using ::testing::Each;

// How often each of `count` threads ran. They live all at once: one that has ended leaves its place to another.
std::vector<int> RunThreads(int count) {
  std::vector<int> runs(count, 0);  // plain ints: two threads of one number would be a race
  std::atomic<bool> all_there = false;
  std::vector<std::thread> threads = StartThreads(count, [&](int i) {
    all_there.wait(false);
    ++runs[i];
  });
  all_there = true;
  all_there.notify_all();
  for (std::thread& thread : threads) thread.join();
  return runs;
}

TEST(ThreadsTest, EachRunsItsNumber) {
  for (const int count : {0, 1, 8}) EXPECT_THAT(RunThreads(count), Each(1)) << count;
}

TEST(ThreadsDeathTest, FewerThanWantedAreEnough) {
  EXPECT_EXIT(
      {
        AllowFewThreads(3);
        const std::vector<int> runs = RunThreads(64);
        const int started = std::accumulate(runs.begin(), runs.end(), 0);
        std::exit(started <= 3 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "W the system gives [0-3] of 64 threads .*; raise the limit");
}

}  // namespace
}  // namespace shoestring
