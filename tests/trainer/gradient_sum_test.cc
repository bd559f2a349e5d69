// The gradient of a step on one rank: lanes by the tree, uses of a parameter last, and nothing forgotten. What several
// ranks make of it is compared with this in layouts_test.
#include "trainer/gradient_sum.h"

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/trainer/tiny_run.h"

namespace shoestring {
namespace {

constexpr int64_t kLanes = 3;

class GradientSumTest : public testing::Test {
 protected:
  GradientSumTest()
      : config_(TinyConfig()),
        held_(HeldTable::Whole(BuildParameterTable(config_.model()), /*copies=*/false)),
        backend_(MakeCpuBackend({.threads = 1})),
        stream_(backend_->MakeStream()),
        links_(SingleRank(*backend_)),
        memory_(int64_t{1} << 24),
        arena_(Base(), int64_t{1} << 23),
        sum_(*backend_, *stream_, arena_, held_, links_, kLanes, /*expert_lanes=*/1) {}

  std::byte* Base() {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    return memory_.data() + (64 - address % 64) % 64;
  }
  // What lane `lane` adds to use `use` of a parameter: whole numbers, so that sums are exact.
  static float Value(int64_t lane, size_t use) { return static_cast<float>(100 * use + 10 + lane); }

  static void Fill(const GradientViews& views, int64_t lane) {
    for (const std::vector<View>& uses : views) {
      for (size_t use = 0; use < uses.size(); ++use) {
        if (!uses[use]) continue;
        float* const data = uses[use].as<float>();
        for (int64_t i = 0; i < uses[use].elements(); ++i) data[i] += Value(lane, use);
      }
    }
  }

  const config::RunConfig config_;
  const HeldTable held_;
  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<Stream> stream_;
  const RankLinks links_;
  std::vector<std::byte> memory_;
  Arena arena_;
  GradientSum sum_;
};

TEST_F(GradientSumTest, AddsEveryLaneAndEveryUseOnce) {
  const LaneShare share = MakeLaneShare(links_.mesh, links_.rank, Direction(0), kLanes, /*expert_lanes=*/1,
                                        /*waves=*/1);
  ASSERT_EQ(share.blocks(), kLanes);
  for (int step = 0; step < 2; ++step) {  // the second one starts from zero again
    sum_.Start();
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sum_.OpenBlock(StageId(0), share, lane);
      Fill(sum_.DenseViews(StageId(0), lane), lane);
      Fill(sum_.ExpertViews(StageId(0), share, lane, 0), lane);
      sum_.CloseBlock(StageId(0), share, lane);
    }
    ASSERT_TRUE(sum_.StageDone(StageId(0)).ok());
    ASSERT_TRUE(sum_.Reduce().ok());
    int shared = 0;
    for (size_t i = 0; i < held_.parameters().size(); ++i) {
      const Parameter& p = held_.parameters()[i];
      if (!p.trained) continue;
      shared += p.uses > 1 ? 1 : 0;
      float expected = 0.0f;
      for (int use = 0; use < p.uses; ++use) {
        for (int64_t lane = 0; lane < kLanes; ++lane) expected += Value(lane, use);
      }
      const View& is = sum_.gradient().reduced[i];
      ASSERT_EQ(is.elements(), p.elements()) << p.name;
      for (int64_t e = 0; e < is.elements(); ++e) ASSERT_EQ(is.as<float>()[e], expected) << p.name << " " << e;
    }
    EXPECT_EQ(shared, 2) << "embedding and head";
  }
}

}  // namespace
}  // namespace shoestring
