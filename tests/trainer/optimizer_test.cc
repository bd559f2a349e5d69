// Gradient norm in its documented blocks, clipping, and AdamW over the table against a plain loop.
#include "trainer/optimizer.h"

#include <cmath>
#include <limits>
#include <memory>

#include "base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "trainer/memory_block.h"
#include "trainer/nan_guard.h"

namespace shoestring {
namespace {

Parameter Make(const std::string& name, int64_t stack, int64_t rows, int64_t cols, bool decay, bool trained = true) {
  Parameter p;
  p.name = name;
  p.stack = stack;
  p.rows = rows;
  p.cols = cols;
  p.decay = decay;
  p.trained = trained;
  p.compute_copy = rows > 1;
  if (!trained) p.initializer = Initializer::kZeros;
  return p;
}

class OptimizerTest : public testing::Test {
 protected:
  OptimizerTest() : memory_(*MemoryBlock::Map(64 << 20)), arena_(memory_.data(), memory_.size_bytes()) {}

  // Of a rank that holds everything.
  Gradient RandomGradients(const HeldTable& held) {
    Gradient gradient;
    const Rng rng(3, RngPurpose::kTest, 4);
    int64_t next = 0;
    for (const Parameter& p : held.parameters()) {
      View view;
      if (p.trained) view = arena_.Allocate(Purpose::kGradients, p.name, DType::kF32, 1, p.elements());
      for (int64_t i = 0; i < view.elements(); ++i) view.as<float>()[i] = static_cast<float>(rng.Normal(next++) * 0.01);
      gradient.reduced.push_back(view);
      gradient.kept.push_back(view);
    }
    return gradient;
  }

  std::unique_ptr<Backend> backend_ = MakeCpuBackend({.threads = 2});
  std::unique_ptr<Stream> stream_ = backend_->MakeStream();
  MemoryBlock memory_;
  Arena arena_;
  const RankLinks links_ = SingleRank(*backend_);
};

TEST_F(OptimizerTest, NormHasOneBlockForEachMatrixOfAStackAndEach2To20Elements) {
  const std::vector<Parameter> table = {Make("experts", 3, 20, 30, true), Make("bias", 1, 1, 8, false, false),
                                        Make("large", 1, 1100, 1000, true), Make("gain", 1, 1, 7, false)};
  const HeldTable held = HeldTable::Whole(table, /*copies=*/true);
  GradientNorm norm(arena_, held);
  const Gradient gradients = RandomGradients(held);
  const double result = *norm.Compute(*backend_, *stream_, gradients, links_);
  ASSERT_EQ(norm.block_sums().size(), 3u + 2u + 1u);
  const auto plain = [](const float* x, int64_t n) {
    long double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<long double>(x[i]) * x[i];
    return static_cast<double>(sum);
  };
  const float* experts = gradients.reduced[0].as<float>();
  const float* large = gradients.reduced[2].as<float>();
  const double expected[] = {plain(experts, 600),
                             plain(experts + 600, 600),
                             plain(experts + 1200, 600),
                             plain(large, 1 << 20),
                             plain(large + (1 << 20), 1100 * 1000 - (1 << 20)),
                             plain(gradients.reduced[3].as<float>(), 7)};
  double total = 0, added = 0;
  for (int b = 0; b < 6; ++b) {
    EXPECT_NEAR(norm.block_sums()[b], expected[b], 1e-12 * expected[b]) << b;  // doubles of 10^6 terms
    total += expected[b];
    added += norm.block_sums()[b];
  }
  EXPECT_EQ(result, std::sqrt(added));  // exactly: block sums in table order
  EXPECT_NEAR(result, std::sqrt(total), 1e-12 * result);
}

// Elements in the second block of a matrix, and in the last matrix of a stack, are named by row and column.
TEST_F(OptimizerTest, TheFirstElementThatIsNotFiniteIsNamed) {
  const std::vector<Parameter> table = {Make("experts", 3, 20, 30, true), Make("bias", 1, 1, 8, false, false),
                                        Make("large", 1, 1100, 1000, true)};
  const HeldTable held = HeldTable::Whole(table, /*copies=*/true);
  GradientNorm norm(arena_, held);
  const Gradient gradients = RandomGradients(held);
  const View answer = arena_.Allocate(Purpose::kData, "answer", DType::kF64, 1, 2);
  const auto check = [&] {
    CHECK(norm.Compute(*backend_, *stream_, gradients, links_).ok());
    return CheckGradients(*backend_, *stream_, held, gradients, norm.block_sums(), links_, answer);
  };
  EXPECT_EQ(check(), absl::OkStatus());
  gradients.reduced[2].as<float>()[1080 * 1000 + 7] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(check().message(), "gradient of large is -inf at row 1080, column 7; no parameter was changed");
  gradients.reduced[0].as<float>()[2 * 600 + 3 * 30 + 4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(check().message(),
            "gradient of experts, matrix 2 of the stack is nan at row 3, column 4; no parameter was changed");
  EXPECT_TRUE(IsStopOnPurpose(check()));
  EXPECT_FALSE(IsStopOnPurpose(absl::FailedPreconditionError("another reason")));
}

TEST(ClipScaleTest, OnlyAboveTheLimit) {
  EXPECT_EQ(ClipScale(0.5, 1.0), 1.0);
  EXPECT_EQ(ClipScale(1.0, 1.0), 1.0);
  EXPECT_EQ(ClipScale(4.0, 1.0), 0.25);
  EXPECT_EQ(ClipScale(1e30, 0.0), 1.0);
}

TEST_F(OptimizerTest, UpdatesEveryTrainedParameterAsAdamWSays) {
  const std::vector<Parameter> table = {Make("matrix", 2, 9, 5, true), Make("bias", 1, 1, 8, false, false),
                                        Make("gain", 1, 1, 7, false)};
  StateFormat format;
  format.ema = true;
  const HeldTable held = HeldTable::Whole(table, /*copies=*/true);
  TrainState state(arena_, held, format);
  ThreadPool pool(1);
  state.Initialize(*backend_, *stream_, pool, 5, 0.5);
  ASSERT_TRUE(state.RefreshCompute(*backend_, *stream_, links_).ok());
  const Gradient gradients = RandomGradients(held);
  std::vector<std::vector<double>> before;
  for (const ParameterState& p : state.parameters()) {
    before.emplace_back(p.master.as<float>(), p.master.as<float>() + p.master.elements());
  }
  OptimizerSettings settings;
  settings.adamw.set_beta1(0.9);
  settings.adamw.set_beta2(0.95);
  settings.adamw.set_eps(1e-8);
  settings.adamw.set_weight_decay(0.1);
  settings.learning_rate = 0.01;
  settings.grad_scale = 0.5;
  settings.ema_decay = 0.75;
  ASSERT_TRUE(UpdateParameters(*backend_, *stream_, settings, gradients, state, links_).ok());
  for (size_t p : {0, 2}) {
    const ParameterState& parameter = state.parameter(p);
    for (int64_t i = 0; i < table[p].elements(); ++i) {
      // At step 1 both corrected moments are the gradient's own: the update is its sign, but for eps.
      const double g = 0.5 * gradients.reduced[p].as<float>()[i];
      const double decay = p == 0 ? 0.1 : 0.0;
      const double expected = before[p][i] - 0.01 * (g / (std::abs(g) + 1e-8) + decay * before[p][i]);
      EXPECT_NEAR(parameter.master.as<float>()[i], expected, 1e-6);
      EXPECT_NEAR(parameter.m.as<float>()[i], 0.1 * g, 1e-9);
      EXPECT_NEAR(parameter.v.as<float>()[i], 0.05 * g * g, 1e-12);
      EXPECT_NEAR(parameter.ema.as<float>()[i], 0.75 * before[p][i] + 0.25 * expected, 1e-6);
      if (parameter.compute) {
        EXPECT_EQ(parameter.compute.as<BF16>()[i].bits, BF16(parameter.master.as<float>()[i]).bits);
      }
    }
  }
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(state.parameter(1).master.as<float>()[i], 0.0f);
}

}  // namespace
}  // namespace shoestring
