// A run as the loop tells it, seen in the files: rows, late validations, resumes, ends.
#include "trainer/observe/run_observer.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/fault_file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/timing_backend.h"
#include "tests/base/temp_dir.h"
#include "trainer/observe/summary.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;

class RunObserverTest : public testing::Test {
 protected:
  std::unique_ptr<RunObserver> Open(int64_t resumed_step, int64_t generation, double peak_gflops = 10) {
    RunFacts facts;
    facts.name = "test";
    facts.total_steps = 25;
    facts.validation_interval_steps = 10;
    facts.resumed_step = resumed_step;
    facts.generation = generation;
    facts.threads_per_rank = 2;
    facts.peak_gflops_per_rank = peak_gflops;
    facts.instruction_set = "avx2";
    facts.device = device_;
    ObserveOptions options;
    options.run_dir = dir_.path();
    options.measure_peak = measure_peak_;
    options.timed = timed_;
    auto observer = RunObserver::Open(*fs_, clock_, facts, options);
    CHECK(observer.ok());
    return *std::move(observer);
  }

  void Step(RunObserver& observer, int64_t step, double seconds = 1.6) {
    clock_.Advance(2'000'000'000);
    StepResult result;
    result.position.step = step;
    result.position.tokens = 100 * step;
    result.plan.tokens = 100;
    result.plan.learning_rate = 0.5;
    result.loss = 10.0 - static_cast<double>(step) / 10.0;
    result.moe_layers = {1, 2};
    result.max_over_mean_load = {1.5, 2.5};
    result.mean_max_over_mean_load = 2.0;
    result.expert_counts = {{step, 1}, {2, 3}};
    result.work.gemm_flops = 6'000'000'000;
    result.work.attention_flops = 2'000'000'000;
    result.times.total_s = seconds;
    ASSERT_EQ(observer.OnStep(result), absl::OkStatus());
  }

  void Validate(RunObserver& observer, int64_t step, double loss) {
    clock_.Advance(1'000'000'000);
    ASSERT_EQ(observer.OnValidation({.step = step, .nats_per_token = loss, .bits_per_byte = loss / 2, .seconds = 1}),
              absl::OkStatus());
  }

  MetricsFile Metrics() { return *ReadMetrics(PosixFileSystem(), dir_.File("metrics.jsonl")); }
  Summary ReadBack() { return *ReadSummary(PosixFileSystem(), dir_.path()); }

  const TempDir dir_;
  FileSystem* fs_ = &PosixFileSystem();  // that the observer writes to
  ManualClock clock_;
  std::function<double()> measure_peak_;
  const TimingBackend* timed_ = nullptr;
  std::string device_ = "CPU";
};

TEST_F(RunObserverTest, DerivesRatesAndTimes) {
  const auto observer = Open(0, 0);
  Step(*observer, 1);
  const MetricsFile metrics = Metrics();
  ASSERT_EQ(metrics.rows.size(), 1);
  const StepMetrics& row = metrics.rows[0];
  EXPECT_DOUBLE_EQ(*row.tokens_per_sec, 62.5);
  EXPECT_DOUBLE_EQ(*row.tflops_per_rank, 0.005);
  EXPECT_DOUBLE_EQ(*row.gemm_peak_share, 0.5);
  EXPECT_DOUBLE_EQ(*row.gemm_flops_share, 0.75);
  EXPECT_DOUBLE_EQ(*row.eta_s, 48);
  EXPECT_DOUBLE_EQ(*row.elapsed_s, 2);
  EXPECT_DOUBLE_EQ(*row.cpu_hours, 4.0 / 3600);
  EXPECT_EQ(row.consumed_tokens, 100);
  EXPECT_EQ(row.dropped, 0);
  EXPECT_EQ(row.skipped_steps_total, 0);
  EXPECT_GT(*row.mem_peak_gib, 0);
  EXPECT_THAT(row.layer_loads, ElementsAre(1.5, 2.5));
}

TEST_F(RunObserverTest, PartsOfAStepAreUnknownOnAGpu) {
  Step(*Open(0, 0), 1);
  EXPECT_TRUE(Metrics().rows[0].forward_s.has_value());
  device_ = "CUDA";
  Step(*Open(0, 0), 1);
  const StepMetrics row = Metrics().rows[0];
  EXPECT_TRUE(row.step_time_s.has_value());
  EXPECT_FALSE(row.forward_s.has_value() || row.backward_s.has_value() || row.optimizer_s.has_value());
}

// What the backend copies for a checkpoint is no part of the step that follows.
TEST_F(RunObserverTest, TimesOfASaveBelongToNoStep) {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({});
  TimingBackend timing(*cpu, RealClock());
  timed_ = &timing;
  const std::unique_ptr<Stream> stream = timing.MakeStream();
  std::vector<float> a(1 << 16), b(1 << 16);
  const auto view = [](std::vector<float>& x) {
    return View(reinterpret_cast<std::byte*>(x.data()), DType::kF32, 1, static_cast<int64_t>(x.size()));
  };
  const auto observer = Open(0, 0);
  Step(*observer, 1);
  timing.Copy(*stream, view(a), view(b));
  Step(*observer, 2);
  timing.Copy(*stream, view(a), view(b));
  observer->OnCheckpointSaved();
  Step(*observer, 3);
  const MetricsFile metrics = Metrics();
  EXPECT_GT(metrics.rows[1].time->total_s(), 0);
  EXPECT_EQ(metrics.rows[2].time->total_s(), 0);
}

// At the start the machine was busy: 2 GFLOP/s, where a step reaches 5 and the machine can do 8.
TEST_F(RunObserverTest, APeakMeasuredOnABusyMachineIsImproved) {
  int calls = 0;
  measure_peak_ = [&calls] { return ++calls < 3 ? 2.0 : 8.0; };
  const auto observer = Open(0, 0, /*peak_gflops=*/2);
  for (int64_t step = 1; step <= 9; ++step) Step(*observer, step);
  const MetricsFile metrics = Metrics();
  ASSERT_EQ(metrics.rows.size(), 9);
  for (int step = 1; step <= 9; ++step) {
    // The step itself is a rate that was reached, so nothing is above 100 %.
    EXPECT_DOUBLE_EQ(*metrics.rows[step - 1].gemm_peak_gflops, step < 3 ? 5 : 8) << step;
    EXPECT_DOUBLE_EQ(*metrics.rows[step - 1].gemm_peak_share, step < 3 ? 1 : 5.0 / 8) << step;
  }
  EXPECT_EQ(calls, 5);  // the first steps only
  observer->OnEnd(absl::OkStatus(), StopReason::kRequested);
  EXPECT_EQ(ReadBack().peak_gflops_per_rank, 8);
  EXPECT_DOUBLE_EQ(ReadBack().gemm_peak_share, 5.0 / 8);
}

TEST_F(RunObserverTest, AStepFasterThanThePeakHasItMeasuredAgain) {
  int calls = 0;
  measure_peak_ = [&calls] { return ++calls <= 5 ? 6.0 : 12.0; };
  const auto observer = Open(0, 0, /*peak_gflops=*/6);
  for (int64_t step = 1; step <= 6; ++step) Step(*observer, step);
  EXPECT_EQ(calls, 5);
  Step(*observer, 7, /*seconds=*/0.8);  // 10 GFLOP/s
  EXPECT_EQ(calls, 6);
  EXPECT_DOUBLE_EQ(*Metrics().rows[5].gemm_peak_share, 5.0 / 6);
  EXPECT_DOUBLE_EQ(*Metrics().rows[6].gemm_peak_share, 10.0 / 12);
}

TEST_F(RunObserverTest, AnUnknownPeakStaysUnknown) {
  const auto observer = Open(0, 0, /*peak_gflops=*/0);
  Step(*observer, 1);
  EXPECT_FALSE(Metrics().rows[0].gemm_peak_share.has_value());
  EXPECT_FALSE(Metrics().rows[0].gemm_peak_gflops.has_value());
  observer->OnEnd(absl::OkStatus(), StopReason::kRequested);
  EXPECT_EQ(ReadBack().gemm_peak_share, 0);
}

TEST_F(RunObserverTest, AValidationIsInTheRowOfItsStep) {
  const auto observer = Open(0, 0);
  for (int64_t step = 1; step <= 10; ++step) Step(*observer, step);
  EXPECT_EQ(Metrics().rows.size(), 9);  // the tenth waits
  Validate(*observer, 10, 4.0);
  const std::string text = *ReadFile(PosixFileSystem(), dir_.File("metrics.jsonl"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 10);
  EXPECT_EQ(Metrics().rows[9].val_loss, 4.0);
  EXPECT_EQ(Metrics().rows[9].loss, 9.0);
}

// A resume from the checkpoint continues these rows, whatever happened to the machine in between.
TEST_F(RunObserverTest, RowsAreAsDurableAsTheCheckpointOfTheirStep) {
  FaultFileSystem losing(PosixFileSystem());
  ASSERT_EQ(losing.TrackDurability(dir_.path()), absl::OkStatus());
  fs_ = &losing;
  const auto observer = Open(0, 0);
  for (int64_t step = 1; step <= 10; ++step) Step(*observer, step);  // the tenth waits
  Arena arena = Arena::Measuring();
  const HeldTable held = HeldTable::Whole({}, /*copies=*/false);
  ASSERT_EQ(observer->OnCheckpointDue(TrainState(arena, held, {})), absl::OkStatus());
  ASSERT_EQ(losing.LosePower(PowerLoss::kDropUnsynced), absl::OkStatus());
  EXPECT_EQ(Metrics().rows.size(), 10);
}

TEST_F(RunObserverTest, ARowWhoseValidationDoesNotComeIsNotLost) {
  const auto observer = Open(0, 0);
  for (int64_t step = 1; step <= 10; ++step) Step(*observer, step);
  observer->OnEnd(absl::OkStatus(), StopReason::kRequested);
  EXPECT_EQ(observer->end_status(), absl::OkStatus());
  EXPECT_EQ(Metrics().rows.size(), 10);
  EXPECT_EQ(ReadBack().exit_reason, "stopped on request");
  EXPECT_EQ(ReadBack().steps, 10);
}

TEST_F(RunObserverTest, AValidationAtAnUnexpectedStepIsMerged) {
  const auto observer = Open(0, 0);
  Step(*observer, 1);
  Validate(*observer, 1, 4.5);
  ASSERT_EQ(Metrics().rows.size(), 1);
  EXPECT_EQ(Metrics().rows[0].val_loss, 4.5);
  EXPECT_EQ(Metrics().rows[0].loss, 9.9);
}

TEST_F(RunObserverTest, AResumedRunContinuesTheTotals) {
  {
    const auto first = Open(0, 0);
    for (int64_t step = 1; step <= 5; ++step) Step(*first, step);
    // Killed: no end.
  }
  EXPECT_EQ(ReadBack().exit_reason, "running");
  clock_.Advance(1'000'000'000'000);
  const auto second = Open(3, 1);
  EXPECT_EQ(Metrics().rows.size(), 3);
  Step(*second, 4);
  const MetricsFile metrics = Metrics();
  ASSERT_EQ(metrics.rows.size(), 4);
  EXPECT_EQ(metrics.rows[3].generation, 1);
  EXPECT_DOUBLE_EQ(*metrics.rows[3].elapsed_s, 8);
  EXPECT_DOUBLE_EQ(*metrics.rows[3].cpu_hours, 16.0 / 3600);
}

TEST_F(RunObserverTest, TheSummaryTellsTheEnd) {
  const auto observer = Open(0, 0);
  for (int64_t step = 1; step <= 25; ++step) {
    Step(*observer, step);
    if (step == 10) Validate(*observer, step, 3.0);
    if (step == 25) Validate(*observer, step, 3.5);
  }
  observer->OnEnd(absl::OkStatus(), StopReason::kFinished);
  const Summary summary = ReadBack();
  EXPECT_EQ(summary.exit_reason, "finished");
  EXPECT_EQ(summary.instruction_set, "avx2");
  EXPECT_EQ(summary.steps, 25);
  EXPECT_EQ(summary.total_steps, 25);
  EXPECT_EQ(summary.tokens, 2500);
  EXPECT_EQ(summary.final_loss, 7.5);
  EXPECT_EQ(summary.final_val_loss, 3.5);
  EXPECT_EQ(summary.best_val_loss, 3.0);
  EXPECT_EQ(summary.final_val_bits_per_byte, 1.75);
  EXPECT_DOUBLE_EQ(summary.wall_time_s, 52);
  EXPECT_DOUBLE_EQ(summary.tokens_per_sec, 62.5);
  EXPECT_DOUBLE_EQ(summary.gemm_peak_share, 0.5);
  EXPECT_EQ(summary.mean_max_over_mean_load, 2.0);
  EXPECT_THAT(summary.loads.counts, ElementsAre(ElementsAre(25, 1), ElementsAre(2, 3)));
}

TEST_F(RunObserverTest, AFailureIsTheExitReason) {
  const auto observer = Open(0, 0);
  Step(*observer, 1);
  observer->OnEnd(absl::FailedPreconditionError("the loss is not finite"), std::nullopt);
  EXPECT_EQ(ReadBack().exit_reason, "failed: the loss is not finite");
}

// Steps 1 to 10 with a validation, timed, and the end; the clock goes on before the next start.
class FinishedRunTest : public RunObserverTest {
 protected:
  FinishedRunTest() {
    const auto first = Open(0, 0);
    for (int64_t step = 1; step <= 10; ++step) Step(*first, step);
    Validate(*first, 10, 4.0);
    first->OnEnd(absl::OkStatus(), StopReason::kStepLimit);
    clock_.Advance(1'000'000'000'000);
  }
  std::string File(const char* name) { return *ReadFile(PosixFileSystem(), dir_.File(name)); }
};

TEST_F(FinishedRunTest, AStartWithNothingLeftToDoChangesNoFigure) {
  Summary expected = ReadBack();
  const std::string metrics = File("metrics.jsonl");
  for (int64_t generation = 1; generation <= 2; ++generation) {
    const auto again = Open(10, generation, /*peak_gflops=*/99);
    clock_.Advance(1'000'000'000);
    again->OnEnd(absl::OkStatus(), StopReason::kStepLimit);
    EXPECT_EQ(File("metrics.jsonl"), metrics);
    expected.generation = generation;
    EXPECT_EQ(File("summary.json"), ToJson(expected));
  }
}

// A start that was stopped on request has no validation; the next one, which has no step to take, makes up for it.
TEST_F(FinishedRunTest, AStartThatOnlyValidatesKeepsTheStepsFigures) {
  const Summary before = ReadBack();
  const auto again = Open(10, 1);
  Validate(*again, 10, 3.5);
  again->OnEnd(absl::OkStatus(), StopReason::kStepLimit);
  ASSERT_EQ(Metrics().rows.size(), 10);
  EXPECT_EQ(Metrics().rows[9].loss, 9.0);
  EXPECT_EQ(Metrics().rows[9].consumed_tokens, 1000);
  EXPECT_EQ(Metrics().rows[9].val_loss, 3.5);
  const Summary after = ReadBack();
  EXPECT_EQ(after.final_val_loss, 3.5);
  EXPECT_EQ(after.final_loss, 9.0);
  EXPECT_EQ(after.tokens, 1000);
  EXPECT_EQ(after.tokens_per_sec, before.tokens_per_sec);
  EXPECT_EQ(after.gemm_peak_share, before.gemm_peak_share);
  EXPECT_EQ(after.mean_max_over_mean_load, 2.0);
  EXPECT_EQ(after.loads.counts, before.loads.counts);
  EXPECT_NEAR(after.wall_time_s, before.wall_time_s + 1, 1e-9);  // the clock is far from 0
}

TEST_F(FinishedRunTest, TotalsGoOnAfterStartsThatDidNothing) {
  for (int64_t generation = 1; generation <= 2; ++generation) {
    const auto again = Open(10, generation);
    if (generation == 1) Validate(*again, 10, 3.5);
    again->OnEnd(absl::OkStatus(), StopReason::kStepLimit);
  }
  const auto last = Open(10, 3);
  Step(*last, 11, /*seconds=*/0.8);
  EXPECT_NEAR(*Metrics().rows[10].elapsed_s, 20 + 1 + 2, 1e-9);
  EXPECT_NEAR(*Metrics().rows[10].cpu_hours, 2 * 23.0 / 3600, 1e-12);
  last->OnEnd(absl::OkStatus(), StopReason::kRequested);
  EXPECT_EQ(ReadBack().tokens, 1100);
  EXPECT_DOUBLE_EQ(ReadBack().tokens_per_sec, 125);  // of the last start alone
  EXPECT_EQ(ReadBack().final_val_loss, 3.5);
}

// What was reached after the step that a run goes back to is not what it reached.
TEST_F(FinishedRunTest, GoingBackForgetsWhatCameLater) {
  const auto again = Open(4, 1);
  again->OnEnd(absl::OkStatus(), StopReason::kStepLimit);
  EXPECT_EQ(ReadBack().steps, 4);
  EXPECT_EQ(ReadBack().tokens, 400);
  EXPECT_EQ(ReadBack().final_loss, 9.6);
  EXPECT_FALSE(ReadBack().final_val_loss.has_value());
  EXPECT_FALSE(ReadBack().best_val_loss.has_value());
}

}  // namespace
}  // namespace shoestring
