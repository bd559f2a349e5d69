// The timing backend forwards every operation unchanged, and charges its time to the right category.
#include "kernels/timing_backend.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace shoestring {
namespace {

// Moves by a second each time it is read, so that every timed call takes one second.
class TickingClock final : public Clock {
 public:
  int64_t MonotonicNanos() override { return nanos_ += 1'000'000'000; }
  int64_t WallNanos() override { return nanos_; }
  void SleepNanos(int64_t nanos) override { nanos_ += nanos; }

 private:
  int64_t nanos_ = 0;
};

class TimingBackendTest : public testing::Test {
 protected:
  View Make(DType dtype, int64_t rows, int64_t cols) {
    storage_.push_back(std::vector<double>(rows * cols, 0.0));
    return View(reinterpret_cast<std::byte*>(storage_.back().data()), dtype, rows, cols);
  }

  std::unique_ptr<Backend> cpu_ = MakeCpuBackend(CpuBackendOptions());
  TickingClock clock_;
  TimingBackend timed_{*cpu_, clock_};
  std::unique_ptr<Stream> stream_ = timed_.MakeStream();
  std::vector<std::vector<double>> storage_;
};

TEST_F(TimingBackendTest, ComputesWhatTheOtherComputesAndCountsTheSameWork) {
  const View a = Make(DType::kF32, 2, 3), b = Make(DType::kF32, 4, 3), c = Make(DType::kF32, 2, 4);
  const std::vector<float> a_host = {1, 2, 3, 4, 5, 6}, b_host = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1};
  timed_.CopyFromHost(*stream_, a_host.data(), a);
  timed_.CopyFromHost(*stream_, b_host.data(), b);
  timed_.Gemm(*stream_, GemmLayout::kNT, {a}, {b}, c);
  std::vector<float> c_host(8);
  timed_.CopyToHost(*stream_, c, c_host.data());
  EXPECT_THAT(c_host, testing::ElementsAre(1, 2, 3, 6, 4, 5, 6, 15));
  EXPECT_EQ(timed_.work().gemm_flops, 2 * 2 * 4 * 3);
  EXPECT_EQ(cpu_->work().gemm_flops, timed_.work().gemm_flops);
  EXPECT_STREQ(timed_.name(), cpu_->name());
  EXPECT_EQ(timed_.Supports(DType::kBF16), cpu_->Supports(DType::kBF16));
}

TEST_F(TimingBackendTest, ChargesEachCategory) {
  const View x = Make(DType::kF32, 2, 4), y = Make(DType::kF32, 2, 4), gain = Make(DType::kF32, 1, 4);
  const View half = Make(DType::kF32, 2, 2), loss = Make(DType::kF32, 1, 2), targets = Make(DType::kI32, 1, 2);
  const View squares = Make(DType::kF64, 1, 1), square = Make(DType::kF32, 2, 2);
  timed_.Zero(*stream_, x);
  timed_.Add(*stream_, x, x, y);
  timed_.Gemm(*stream_, GemmLayout::kNT, {x}, {y}, square);
  timed_.RmsNorm(*stream_, {.x = x, .delta = {}, .sum = {}, .gain = gain, .eps = 1e-6, .y = {y}, .inverse_rms = {}});
  timed_.SwiGlu(*stream_, {.gate_up = x, .row_weight = {}, .offsets = {}}, {half});
  timed_.CrossEntropy(*stream_, {.logits = x, .targets = targets, .grad_scale = 1, .loss = loss, .d_logits = {}});
  timed_.SquaredNorm(*stream_, x, squares);
  const TimeBreakdown& times = timed_.times();
  EXPECT_EQ(times[TimeCategory::kCopy], 2);
  EXPECT_EQ(times[TimeCategory::kGemm], 1);
  EXPECT_EQ(times[TimeCategory::kGroupedGemm], 0);
  EXPECT_EQ(times[TimeCategory::kNorm], 1);
  EXPECT_EQ(times[TimeCategory::kActivation], 1);
  EXPECT_EQ(times[TimeCategory::kLoss], 1);
  EXPECT_EQ(times[TimeCategory::kOptimizer], 1);
  EXPECT_EQ(times.calls[static_cast<int>(TimeCategory::kCopy)], 2);
  EXPECT_EQ(times.total_s(), 7);

  const TimeBreakdown before = times;
  timed_.Zero(*stream_, x);
  EXPECT_EQ(timed_.times().Since(before).total_s(), 1);
  timed_.ResetTimes();
  EXPECT_EQ(timed_.times().total_s(), 0);
}

// A device that has done nothing before it is waited for, and whose work takes a minute.
class LateBackend final : public TimingBackend {
 public:
  LateBackend(Backend& inner, Clock& clock) : TimingBackend(inner, clock), clock_(clock) {}
  void Synchronize(Stream& stream) override {
    TimingBackend::Synchronize(stream);
    clock_.SleepNanos(60'000'000'000);
  }

 private:
  Clock& clock_;
};

TEST_F(TimingBackendTest, WaitsForEachOperationIfAskedTo) {
  LateBackend late(*cpu_, clock_);
  TimingBackend timed(late, clock_);
  const View x = Make(DType::kF32, 2, 4);
  timed.Zero(*stream_, x);
  EXPECT_LT(timed.times().total_s(), 60);
  timed.set_waits(true);
  timed.Zero(*stream_, x);
  EXPECT_GT(timed.times()[TimeCategory::kCopy], 60) << "the wait is part of the operation";
  timed.set_waits(false);
  timed.Zero(*stream_, x);
  EXPECT_LT(timed.times().total_s(), 120);
  EXPECT_EQ(timed.times().calls[static_cast<int>(TimeCategory::kCopy)], 3);
}

TEST(TimeCategoryTest, NamesDiffer) {
  std::vector<std::string> names;
  for (int i = 0; i < kTimeCategories; ++i) names.push_back(Name(static_cast<TimeCategory>(i)));
  EXPECT_THAT(names, testing::ElementsAre("gemm", "grouped_gemm", "attention", "norm", "activation", "routing", "loss",
                                          "optimizer", "copy", "quantise"));
}

}  // namespace
}  // namespace shoestring
