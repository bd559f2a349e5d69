// Tests that the thread pool runs every task once, whatever the number of threads and tasks.
#include "kernels/cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "tests/base/few_threads.h"

namespace shoestring {
namespace {

struct PoolCase {
  int threads;
  int spin;
};

class ThreadPoolTest : public testing::TestWithParam<PoolCase> {};

TEST_P(ThreadPoolTest, EveryTaskRunsOnceInManyCallsInARow) {
  ThreadPool pool(GetParam().threads, GetParam().spin);
  ASSERT_EQ(pool.threads(), GetParam().threads);
  for (int64_t tasks = 0; tasks < 200; ++tasks) {
    std::vector<int> runs(tasks, 0);  // plain ints: two threads on one task would be a race
    pool.ParallelFor(tasks, [&](int64_t task, int) { ++runs[task]; });
    EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), int64_t{0}), tasks);
    for (int count : runs) EXPECT_EQ(count, 1);
  }
}

TEST_P(ThreadPoolTest, WorkerIndicesAreExclusive) {
  ThreadPool pool(GetParam().threads, GetParam().spin);
  std::vector<std::atomic<int>> inside(GetParam().threads);
  std::atomic<int> clashes{0};
  pool.ParallelFor(2000, [&](int64_t, int worker) {
    ASSERT_LT(worker, GetParam().threads);
    if (inside[worker].fetch_add(1) != 0) ++clashes;
    inside[worker].fetch_sub(1);
  });
  EXPECT_EQ(clashes.load(), 0);
}

TEST_P(ThreadPoolTest, RangesCoverTheItemsOnGrains) {
  ThreadPool pool(GetParam().threads, GetParam().spin);
  for (int64_t items : {0, 1, 15, 16, 17, 100, 1000}) {
    std::vector<int> touched(items, 0);
    pool.ParallelRanges(items, 16, [&](int64_t begin, int64_t end, int) {
      EXPECT_EQ(begin % 16, 0);
      EXPECT_TRUE(end % 16 == 0 || end == items);
      for (int64_t i = begin; i < end; ++i) ++touched[i];
    });
    for (int count : touched) EXPECT_EQ(count, 1);
  }
}

TEST(ThreadPoolDeathTest, RunsWithTheThreadsThatTheSystemGives) {
  EXPECT_EXIT(
      {
        AllowFewThreads(3);
        ThreadPool pool(8);
        std::vector<int> runs(2000, 0);
        pool.ParallelFor(2000, [&](int64_t task, int worker) { runs[task] += worker < pool.threads(); });
        const bool all = std::count(runs.begin(), runs.end(), 1) == 2000;
        std::exit(all && pool.threads() <= 4 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "the system gives [0-3] of 7 threads");
}

INSTANTIATE_TEST_SUITE_P(Pools, ThreadPoolTest,
                         testing::Values(PoolCase{1, 2000}, PoolCase{2, 2000}, PoolCase{2, 0}, PoolCase{3, 10},
                                         PoolCase{8, 0}),
                         [](const auto& info) {
                           return "threads" + std::to_string(info.param.threads) + "_spin" +
                                  std::to_string(info.param.spin);
                         });

}  // namespace
}  // namespace shoestring
