// Parts of the probe one by one: tensors in pieces, forced choices, initial weights.
#include "trainer/numerics/probe_backend.h"

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/memory_block.h"
#include "trainer/numerics/initial_weights.h"
#include "trainer/train_state.h"

namespace shoestring {
namespace {

TEST(MeasuringSinkTest, PiecesMeetTheirOwnReference) {
  const TensorName name{"logits", TensorGroup::kActivation, 3};
  ReferenceTensors reference;
  reference.Take(name, {1, 2});
  reference.Take(name, {3, 4, 5});
  EXPECT_EQ(reference.Find("logits", 2), nullptr);
  EXPECT_EQ(reference.Find("other", 0), nullptr);
  MeasuringSink sink(reference);
  sink.Take(name, {1, 2});
  sink.Take(name, {3, 4, 6});
  ASSERT_EQ(sink.tensors().size(), 1);
  EXPECT_EQ(sink.tensors()[0].id.layer, 3);
  EXPECT_EQ(sink.tensors()[0].signal.elements(), 5);
  EXPECT_NEAR(sink.tensors()[0].signal.SnrDb(), 10 * std::log10(55.0 / 1.0), 1e-9);
}

class GateTest : public testing::TestWithParam<bool> {};

TEST_P(GateTest, ForcedChoicesHaveTheWeightsOfTheirOwnScores) {
  constexpr int64_t kTokens = 2, kExperts = 4, kChosen = 2;
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  const MemoryBlock memory = *MemoryBlock::Map(1 << 16);
  Arena arena(memory.data(), memory.size_bytes());
  const auto allocate = [&](DType dtype, int64_t cols) {
    return arena.Allocate(Purpose::kScratch, "x", dtype, kTokens, cols);
  };
  const View logits = allocate(DType::kF32, kExperts);
  const GateResult free{allocate(DType::kF32, kExperts), allocate(DType::kI32, kChosen), allocate(DType::kF32, kChosen),
                        arena.Allocate(Purpose::kScratch, "counts", DType::kI64, 1, kExperts)};
  const GateResult forced{allocate(DType::kF32, kExperts), allocate(DType::kI32, kChosen),
                          allocate(DType::kF32, kChosen), free.counts};
  const std::vector<float> values = {2, 1, -1, -2, 0.3f, -0.2f, 0.1f, 0.7f};
  std::copy(values.begin(), values.end(), logits.as<float>());
  GateArgs args;
  args.logits = logits;
  args.chosen = kChosen;
  args.renormalize = GetParam();
  args.scaling = 2.5;
  backend->Gate(*stream, args, free);
  ASSERT_EQ(free.experts.as<int32_t>(0)[1], 1);

  ReferenceTensors sink;
  ProbeBackend probe(*backend, sink, 1, 0);
  // The first token is sent to experts 1 and 3 instead of 0 and 1, the second where it goes by itself.
  const Routing wanted{{{1, 3, free.experts.as<int32_t>(1)[0], free.experts.as<int32_t>(1)[1]}}};
  probe.SetRouting(&wanted, &wanted);
  probe.Gate(*stream, args, forced);
  EXPECT_EQ(probe.routed_tokens(), 2);
  EXPECT_EQ(probe.differing_tokens(), 1);
  EXPECT_EQ(probe.routing().experts[0], (std::vector<int32_t>{0, 1, wanted.experts[0][2], wanted.experts[0][3]}));
  EXPECT_EQ(forced.experts.as<int32_t>(0)[0], 1);
  EXPECT_EQ(forced.experts.as<int32_t>(0)[1], 3);
  const double first = 1 / (1 + std::exp(-1.0)), second = 1 / (1 + std::exp(2.0));
  const double factor = GetParam() ? 2.5 / (first + second) : 2.5;
  EXPECT_NEAR(forced.weights.as<float>(0)[0], factor * first, 1e-6);
  EXPECT_NEAR(forced.weights.as<float>(0)[1], factor * second, 1e-6);
  for (int k = 0; k < kChosen; ++k) EXPECT_EQ(forced.weights.as<float>(1)[k], free.weights.as<float>(1)[k]);
}

INSTANTIATE_TEST_SUITE_P(Renormalized, GateTest, testing::Bool());

TEST(InitialWeightsTest, AreThoseOfStepZero) {
  const config::RunConfig config = TinyConfig();
  const MemoryBlock memory = *MemoryBlock::Map(16 << 20);
  Arena arena(memory.data(), memory.size_bytes());
  std::vector<StateTensor> tensors;
  const std::vector<Parameter> table = BuildParameterTable(config.model());
  for (const Parameter& p : table) {
    const View view = arena.Allocate(Purpose::kMasterWeights, p.name, DType::kF32, p.stack * p.rows, p.cols);
    tensors.push_back({StateKind::kWeights, p.name, {}, view});
  }
  ASSERT_EQ(WriteInitialWeights(config, 2, tensors), absl::OkStatus());
  for (size_t i = 0; i < table.size(); ++i) {
    const Rng rng(config.train().seed(), RngPurpose::kInit, InitStream(table[i].name));
    for (int64_t e = 0; e < table[i].elements(); ++e) {
      float wanted = table[i].initializer == Initializer::kOnes ? 1.0f : 0.0f;
      if (table[i].initializer == Initializer::kNormal) wanted = static_cast<float>(0.05 * rng.Normal(e));
      ASSERT_EQ(tensors[i].view.as<float>()[e], wanted) << table[i].name << " " << e;
    }
  }
}

}  // namespace
}  // namespace shoestring
