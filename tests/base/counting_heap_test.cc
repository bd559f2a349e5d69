// The counter sees every form of new, or the tests that rest on it prove nothing.
#include "tests/base/counting_heap.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace shoestring {
namespace {

struct alignas(64) Line {
  std::byte bytes[64];
};

template <typename Allocate>
int64_t CallsOf(const Allocate& allocate) {
  const int64_t before = HeapCalls();
  allocate();
  return HeapCalls() - before;
}

TEST(CountingHeapTest, CountsEveryForm) {
  EXPECT_EQ(CallsOf([] {}), 0);
  std::unique_ptr<int> one;
  EXPECT_EQ(CallsOf([&] { one = std::make_unique<int>(1); }), 1);
  std::unique_ptr<int[]> many;
  EXPECT_EQ(CallsOf([&] { many = std::make_unique<int[]>(100); }), 1);
  std::vector<Line> lines;
  EXPECT_EQ(CallsOf([&] { lines.resize(3); }), 1);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(lines.data()) % alignof(Line), 0);
  std::unique_ptr<char> no_throw;
  EXPECT_EQ(CallsOf([&] { no_throw.reset(new (std::nothrow) char('a')); }), 1);
}

TEST(CountingHeapTest, CountsOtherThreads) {
  std::vector<int> filled;
  const auto fill = [&filled] { filled.resize(1000); };
  EXPECT_GE(CallsOf([&] { std::thread(fill).join(); }), 2);  // what the thread needs, and the vector
}

}  // namespace
}  // namespace shoestring
