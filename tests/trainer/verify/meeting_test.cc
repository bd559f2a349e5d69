// Threads meet, round after round; and go home when one is missing for good.
#include "trainer/verify/meeting.h"

#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace shoestring {
namespace {

TEST(MeetingTest, NobodyIsARoundAhead) {
  constexpr int kThreads = 5, kRounds = 200;
  Meeting meeting(kThreads);
  std::atomic<int> arrived{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int round = 1; round <= kRounds; ++round) {
        ++arrived;
        if (!meeting.Meet().ok() || arrived < round * kThreads) ++wrong;
        if (!meeting.Meet().ok()) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(arrived, kThreads * kRounds);
}

TEST(MeetingTest, EndsForAllWhenOneLeaves) {
  Meeting meeting(3);
  absl::Status early, late;
  std::thread waiting([&] { early = meeting.Meet(); });
  std::thread leaving([&] { meeting.Leave(); });
  waiting.join();
  leaving.join();
  late = meeting.Meet();
  EXPECT_TRUE(absl::IsUnavailable(early)) << early;
  EXPECT_TRUE(absl::IsUnavailable(late)) << late;
}

}  // namespace
}  // namespace shoestring
