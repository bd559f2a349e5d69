// What becomes of a step when more rows travel than buffers hold, when a rank is late, and when one dies: no token is
// lost, and the error says who, where and what.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/timing_backend.h"
#include "tests/base/few_threads.h"
#include "tests/trainer/layout_bench.h"

namespace shoestring {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr char kFourRanks[] = "pipeline_ranks: 2 stages: 2 data_ranks: 2 expert_ranks: 2 zero1: true";

config::RunConfig ConfigOf(const std::string& layout) {
  return TinyConfig("BF16", absl::StrCat(R"(
    train { lanes: 4 expert_lanes: 1
            phase { sequence_length: 12 steps: 12 micro_batch: 1 batch { sequences: 8 }
                    learning_rate { constant: 0.003 } } }
    model { layers: 3 }
    layout { )",
                                         layout, " }"));
}

TEST(RankFailuresTest, MoreRowsThanBuffersHoldMakePassesNotErrors) {
  const absl::StatusOr<LayoutResult> one = TrainOnThreads(ConfigOf(""), 2);
  ASSERT_TRUE(one.ok()) << one.status();
  for (const char* exchange :
       {"exchange { buffer_factor: 0.01 }", "exchange { buffer_factor: 0.01 path: TWO_HOP } ranks_per_node: 2"}) {
    const absl::StatusOr<LayoutResult> many =
        TrainOnThreads(ConfigOf(absl::StrCat("data_ranks: 4 expert_ranks: 4 ", exchange)), 2);
    ASSERT_TRUE(many.ok()) << many.status();
    EXPECT_EQ(many->tensors, one->tensors) << exchange;
    EXPECT_EQ(many->losses, one->losses) << exchange;
  }
}

// Calls something in the middle of each forward pass of a layer with experts.
class HookedBackend final : public TimingBackend {
 public:
  HookedBackend(Backend& inner, std::function<void()> hook)
      : TimingBackend(inner, RealClock()), inner_(inner), hook_(std::move(hook)) {}

 private:
  void DoGate(Stream& stream, const GateArgs& args, const GateResult& result) override {
    inner_.Gate(stream, args, result);
    hook_();
  }

  Backend& inner_;
  const std::function<void()> hook_;
};

// Trains on four ranks; in the middle of the second step of `rank` its `fail` is called, once.
absl::Status TrainAndFail(double timeout_s, Rank rank, const std::function<void(const RankLinks&)>& fail) {
  const config::RunConfig config = ConfigOf(kFourRanks);
  return RunThreadRanks(*Mesh::Create(config.layout()), [&](RankLinks links) -> absl::Status {
    links.timeout_s = timeout_s;
    const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
    bool armed = false;
    const RankLinks* own = nullptr;
    HookedBackend backend(*cpu, [&] {
      if (std::exchange(armed, false)) fail(*own);
    });
    ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                     Trainer::Create(config, FormulaData(config), backend, RealClock(), {}, std::move(links)));
    own = &trainer->links();
    RETURN_IF_ERROR(trainer->Step().status());
    armed = own->rank == rank;
    return trainer->Step().status();
  });
}

// The ranks that wait say for whom, in which group, in which call.
TEST(RankFailuresTest, ALateRankIsNamed) {
  constexpr double kTimeout = 2.0;
  for (const int late : {0, 3}) {
    const absl::Status status = TrainAndFail(kTimeout, Rank(late), [&](const RankLinks&) {
      std::this_thread::sleep_for(std::chrono::duration<double>(3 * kTimeout));
    });
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("(rank ", late, ") had not come after 2 s")));
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(absl::StrCat("rank ", late, ":")))) << "others waited";
  }
}

TEST(RankFailuresTest, ARankThatDiesMidStepIsTheOneThatIsNamed) {
  for (const int dead : {0, 1, 2, 3}) {
    const absl::Status status = TrainAndFail(60.0, Rank(dead), [](const RankLinks& links) {
      // Whatever a rank can no longer do: its next message ends it.
      links.experts->Abort(absl::InternalError("uncorrectable memory error"));
    });
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(StartsWith(absl::StrCat("rank ", dead, ":")), HasSubstr("uncorrectable memory error")))
        << status;
  }
}

// In a process of its own, that may have few threads.
absl::Status RunWithFewThreads() {
  AllowFewThreads(8);
  config::LayoutConfig layout;
  layout.set_data_ranks(256);
  return RunThreadRanks(*Mesh::Create(layout), [](RankLinks links) {
    const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
    double x = 0;
    return links.world->AllReduce(*cpu->MakeStream(), {reinterpret_cast<std::byte*>(&x), DType::kF64, 1, 1},
                                  links.Named("sum"));
  });
}

TEST(RankFailuresDeathTest, ASystemWithoutThreadsIsNamed) {
  EXPECT_EXIT(
      {
        const absl::Status status = RunWithFewThreads();
        std::fprintf(stderr, "%s\n", status.ToString().c_str());
        std::exit(absl::IsResourceExhausted(status) ? 0 : 1);
      },
      testing::ExitedWithCode(0), "rank [0-9]+ of 256: the system gives no thread for it .*; use fewer ranks");
}

}  // namespace
}  // namespace shoestring
