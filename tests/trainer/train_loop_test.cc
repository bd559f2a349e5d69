// The loop on a tiny model: it learns, it repeats itself bit for bit, it stops before bad numbers spread.
#include "trainer/train_loop.h"

#include <openssl/sha.h>

#include <cmath>
#include <limits>

#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/base/counting_heap.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/nan_guard.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Sha256OfState(const TrainState& state) {
  std::string bytes;
  for (const ParameterState& p : state.parameters()) {
    for (const View& view : {p.master, p.compute, p.m, p.v, p.ema}) {
      if (view) bytes.append(reinterpret_cast<const char*>(view.data), view.bytes());
    }
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::BytesToHexString({reinterpret_cast<char*>(digest), sizeof(digest)});
}

struct TinyRun {
  explicit TinyRun(const config::RunConfig& config, int threads = 1, TrainOptions options = {}, TrainData data = {})
      : backend(MakeCpuBackend({.threads = threads})) {
    options.threads = threads;
    if (!data.training) data = FormulaData(config);
    absl::StatusOr<std::unique_ptr<Trainer>> created =
        Trainer::Create(config, std::move(data), *backend, RealClock(), options);
    CHECK(created.ok());
    trainer = *std::move(created);
  }
  StepResult Step() {
    const absl::StatusOr<const StepResult*> result = trainer->Step();
    CHECK(result.ok());
    return **result;
  }
  std::string StepsThenSha(int steps) {
    for (int i = 0; i < steps; ++i) Step();
    return Sha256OfState(trainer->state());
  }
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Trainer> trainer;
};

class Recorder final : public TrainObserver {
 public:
  explicit Recorder(std::atomic<bool>* stop = nullptr, int64_t stop_at = -1) : stop_(stop), stop_at_(stop_at) {}
  absl::Status OnStart(const TrainState&) override { return Say("start"); }
  absl::Status OnStep(const StepResult& result) override {
    last = result;
    if (result.position.step == stop_at_) stop_->store(true);
    return Say(absl::StrCat("step ", result.position.step));
  }
  absl::Status OnValidation(const ValidationResult& result) override {
    validations.push_back(result);
    return Say(absl::StrCat("validation ", result.step));
  }
  absl::Status OnCheckpointDue(const TrainState& state) override {
    return Say(absl::StrCat("save ", state.position.step));
  }
  void OnEnd(const absl::Status& status, std::optional<StopReason>) override {
    log.push_back(status.ok() ? "end" : "failed");
  }
  absl::Status Say(const std::string& what) {
    log.push_back(what);
    return what == fail_at ? absl::UnavailableError("disk full") : absl::OkStatus();
  }
  std::vector<std::string> log;
  std::string fail_at;
  std::vector<ValidationResult> validations;
  StepResult last;

 private:
  std::atomic<bool>* stop_;
  int64_t stop_at_;
};

TEST(TrainerTest, LossFallsAndResultsAreWhole) {
  for (const char* mode : {"FP32", "BF16", "FP8"}) {
    TinyRun run(TinyConfig(mode));
    const StepResult first = run.Step();
    EXPECT_NEAR(first.loss, std::log(61.0), 0.3);
    EXPECT_NEAR(first.loss_mtp, std::log(61.0), 0.3);
    EXPECT_GT(first.loss_balance, 0.0);
    EXPECT_LT(first.loss_balance, 0.01);
    EXPECT_GT(first.grad_norm, 0.0);
    EXPECT_THAT(first.moe_layers, ElementsAre(1, 2));  // layer 1 and the MTP module
    for (double load : first.max_over_mean_load) {
      EXPECT_GE(load, 1.0);
      EXPECT_LE(load, 4.0);  // E / K: all tokens to the same two
    }
    EXPECT_EQ(static_cast<float>(first.bias_abs_max), 0.001f);
    EXPECT_GT(first.work.gemm_flops, 0);
    EXPECT_DOUBLE_EQ(first.plan.learning_rate, 0.001);
    StepResult last;
    for (int i = 1; i < 12; ++i) last = run.Step();
    EXPECT_LT(last.loss, first.loss - 0.2) << mode;
    EXPECT_EQ(last.position.step, 12);
    EXPECT_EQ(last.position.tokens, 12 * 12 * 12);
    EXPECT_TRUE(run.trainer->schedule().Done(run.trainer->state().position));
  }
}

TEST(TrainerTest, OverfitsOneBatch) {
  const config::RunConfig config = TinyConfig("FP32", R"(train { phase {
    sequence_length: 12 steps: 150 micro_batch: 4 batch { sequences: 4 } learning_rate { constant: 0.01 } } })");
  TrainData data;
  data.training = [](int) -> absl::StatusOr<std::unique_ptr<TokenSource>> {
    return std::make_unique<FormulaSource>(14, 1, 4);
  };
  TinyRun run(config, 1, {}, data);
  StepResult result;
  for (int i = 0; i < 150; ++i) result = run.Step();
  EXPECT_LT(result.loss, 0.05);
  EXPECT_LT(result.loss_mtp, 0.2);
}

TEST(TrainerTest, SameBitsOnEveryRunAndNumberOfThreads) {
  for (const char* mode : {"FP32", "BF16", "FP8"}) {
    const config::RunConfig config = TinyConfig(mode, "train { lanes: 3 }");
    const std::string once = TinyRun(config).StepsThenSha(4);
    EXPECT_EQ(once, TinyRun(config).StepsThenSha(4)) << mode;
    EXPECT_EQ(once, TinyRun(config, 2).StepsThenSha(4)) << mode;
    EXPECT_NE(once, TinyRun(config).StepsThenSha(3)) << mode;
  }
}

// Lanes change the order of sums: nearly the same losses, not the same bits.
TEST(TrainerTest, LanesChangeTheLastBitsOnly) {
  std::vector<std::string> hashes;
  std::vector<double> losses;
  for (int lanes : {1, 2, 3, 6}) {
    TinyRun run(TinyConfig("FP32", absl::StrCat("train { lanes: ", lanes, " }")));
    hashes.push_back(run.StepsThenSha(3));
    losses.push_back(run.Step().loss);
  }
  for (size_t i = 1; i < losses.size(); ++i) {
    EXPECT_NEAR(losses[i], losses[0], 1e-4);
    EXPECT_NE(hashes[i], hashes[0]);
  }
}

// The gradient of one step with L lanes is the documented tree over the gradients of its lanes: each lane's gradient,
// taken from a run whose batch is that lane alone, folded by hand, equals the accumulators bit for bit.
TEST(TrainerTest, LanesFoldByTheDocumentedTree) {
  const auto gradient_of = [](const config::RunConfig& config, int64_t first_sample, double scale) {
    TinyRun run(config);
    TrainStep* step = *run.trainer->CurrentStep();
    StepPlan plan = run.trainer->schedule().PlanStep({});
    HostBatch batch;
    FormulaSource source(14, 1);
    CHECK(PrepareBatch(source, step->batch_shape(), SampleRuns::One(first_sample, plan.sequences), batch).ok());
    // Losses are scaled by the global batch, so a lane alone must be told of the whole one's size.
    StepPlan scaled = plan;
    scaled.tokens = static_cast<int64_t>(plan.tokens * scale);
    scaled.balance_alpha = plan.balance_alpha / scale;
    StepResult result;
    CHECK(step->ComputeGradients(scaled, batch, result).ok());
    std::vector<std::vector<float>> values;
    for (size_t p = 0; p < run.trainer->table().size(); ++p) {
      if (!run.trainer->table()[p].trained) continue;
      // Parameters with several uses are added after the tree, which one lane alone cannot show.
      if (run.trainer->table()[p].uses > 1) continue;
      const View view = step->gradients().kept[p];
      values.emplace_back(view.as<float>(), view.as<float>() + view.elements());
    }
    return values;
  };
  const auto config_of = [](int lanes, int sequences) {
    return TinyConfig("FP32", absl::StrCat("train { lanes: ", lanes,
                                           " phase { sequence_length: 12 steps: 1 micro_batch: 2 batch { sequences: ",
                                           sequences, " } learning_rate { constant: 0 } } }"));
  };
  const auto all = gradient_of(config_of(3, 12), 0, 1.0);
  std::vector<std::vector<std::vector<float>>> lane;
  for (int l = 0; l < 3; ++l) lane.push_back(gradient_of(config_of(1, 4), 4 * l, 3.0));
  int64_t nonzero = 0;
  for (size_t p = 0; p < all.size(); ++p) {
    for (size_t i = 0; i < all[p].size(); ++i) {
      ASSERT_EQ(all[p][i], (lane[0][p][i] + lane[1][p][i]) + lane[2][p][i]) << "tensor " << p << ", element " << i;
      nonzero += all[p][i] != 0.0f;
    }
  }
  EXPECT_GT(nonzero, 1000);
}

TEST(TrainerTest, ANanInAGradientStopsBeforeTheStepAndNamesTheTensor) {
  TinyRun run(TinyConfig("BF16"));
  run.Step();
  const std::string before = Sha256OfState(run.trainer->state());
  TrainStep* step = *run.trainer->CurrentStep();
  for (size_t p = 0; p < run.trainer->table().size(); ++p) {
    const Parameter& parameter = run.trainer->table()[p];
    if (!parameter.trained) continue;
    const RunPosition position = run.trainer->state().position;
    const StepPlan plan = run.trainer->schedule().PlanStep(position);
    HostBatch batch;
    FormulaSource source(14, 1);
    ASSERT_TRUE(
        PrepareBatch(source, step->batch_shape(), SampleRuns::One(plan.first_sample, plan.sequences), batch).ok());
    StepResult result;
    ASSERT_TRUE(step->ComputeGradients(plan, batch, result).ok());
    const View gradient = step->gradients().kept[p];
    gradient.as<float>()[gradient.elements() - 1] =
        p % 2 == 0 ? std::numeric_limits<float>::quiet_NaN() : -std::numeric_limits<float>::infinity();
    const absl::Status status = step->Update(plan, result);
    ASSERT_TRUE(IsStopOnPurpose(status)) << status;
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(status.message(), HasSubstr(absl::StrCat("gradient of ", parameter.name)));
    EXPECT_THAT(status.message(), HasSubstr(absl::StrCat("column ", parameter.cols - 1)));
    if (parameter.stack > 1) {
      EXPECT_THAT(status.message(), HasSubstr(absl::StrCat("matrix ", parameter.stack - 1)));
    }
    EXPECT_EQ(run.trainer->state().position, position);
  }
  EXPECT_EQ(Sha256OfState(run.trainer->state()), before);
  run.Step();  // and it can go on
}

TEST(TrainerTest, ANanInAWeightStopsAtTheLoss) {
  TinyRun run(TinyConfig("FP32"));
  const std::vector<Parameter>& table = run.trainer->table();
  size_t head = 0;
  while (table[head].name != "lm_head.weight") ++head;
  run.trainer->state().parameter(head).master.as<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  const std::string before = Sha256OfState(run.trainer->state());
  Recorder recorder;
  run.trainer->AddObserver(recorder);
  const absl::StatusOr<StopReason> reason = run.trainer->Run();
  EXPECT_TRUE(IsStopOnPurpose(reason.status())) << reason.status();
  EXPECT_THAT(reason.status().message(), HasSubstr("loss is nan in micro-batch (lane 0, wave 0)"));
  EXPECT_THAT(recorder.log, ElementsAre("start", "failed"));
  EXPECT_EQ(Sha256OfState(run.trainer->state()), before);
}

TEST(TrainerTest, ClippingBoundsTheGradient) {
  const auto master_after = [](const std::string& clip) {
    TinyRun run(TinyConfig("FP32", absl::StrCat("train { clip_norm: ", clip, " }")));
    const StepResult result = run.Step();
    return std::pair(result.grad_scale, result.grad_norm);
  };
  const auto [scale, norm] = master_after("0.001");
  EXPECT_DOUBLE_EQ(scale * norm, 0.001);
  EXPECT_EQ(master_after("0").first, 1.0);
  EXPECT_EQ(master_after("1000").first, 1.0);
  EXPECT_EQ(master_after("1000").second, norm);
}

TEST(TrainerTest, ObserversSeeEverythingInOrder) {
  TinyRun run(TinyConfig());
  Recorder recorder;
  run.trainer->AddObserver(recorder);
  const absl::StatusOr<StopReason> reason = run.trainer->Run();
  ASSERT_TRUE(reason.ok()) << reason.status();
  EXPECT_EQ(*reason, StopReason::kFinished);
  EXPECT_THAT(recorder.log, ElementsAre("start", "step 1", "step 2", "step 3", "step 4", "save 4", "step 5",
                                        "validation 5", "step 6", "step 7", "step 8", "save 8", "step 9", "step 10",
                                        "validation 10", "step 11", "step 12", "save 12", "validation 12", "end"));
  ASSERT_EQ(recorder.validations.size(), 3u);
  EXPECT_EQ(recorder.validations[2].targets, 5 * 12);
  EXPECT_LT(recorder.validations[2].nats_per_token, recorder.validations[0].nats_per_token);
  EXPECT_DOUBLE_EQ(recorder.validations[2].bits_per_byte,
                   recorder.validations[2].nats_per_token / (4.0 * std::log(2.0)));
}

TEST(TrainerTest, TheStopFlagSavesAndStops) {
  std::atomic<bool> stop{false};
  TrainOptions options;
  options.stop = &stop;
  TinyRun run(TinyConfig(), 1, options);
  Recorder recorder(&stop, 2);
  run.trainer->AddObserver(recorder);
  const absl::StatusOr<StopReason> reason = run.trainer->Run();
  ASSERT_TRUE(reason.ok()) << reason.status();
  EXPECT_EQ(*reason, StopReason::kRequested);
  EXPECT_THAT(recorder.log, ElementsAre("start", "step 1", "step 2", "save 2", "end"));
}

// A start with nothing left to do, whose validation is known: nothing happens.
TEST(TrainerTest, AKnownValidationIsNotRepeated) {
  TrainOptions options;
  options.max_steps = 3;
  for (const int64_t known : {-1, 3}) {
    options.validated_step = known;
    TinyRun run(TinyConfig(), 1, options);
    run.trainer->state().position = {.step = 3, .tokens = 432, .phase = 0, .phase_step = 3};
    Recorder recorder;
    run.trainer->AddObserver(recorder);
    EXPECT_EQ(*run.trainer->Run(), StopReason::kStepLimit);
    if (known == 3) {
      EXPECT_THAT(recorder.log, ElementsAre("start", "end"));
    } else {
      EXPECT_THAT(recorder.log, ElementsAre("start", "validation 3", "end"));
    }
  }
}

TEST(TrainerTest, AFailingObserverEndsTheRun) {
  TinyRun run(TinyConfig());
  Recorder recorder;
  recorder.fail_at = "save 4";
  run.trainer->AddObserver(recorder);
  EXPECT_EQ(run.trainer->Run().status().message(), "disk full");
  EXPECT_EQ(recorder.log.back(), "failed");
}

// A run that copies its state to a fresh trainer in the middle goes on as if nothing had happened.
class CarriedOver : public testing::TestWithParam<const char*> {};

TEST_P(CarriedOver, ContinuesBitForBit) {
  const config::RunConfig config = TinyConfig(GetParam(), R"(train { lanes: 2
    phase { sequence_length: 12 steps: 4 micro_batch: 2 batch { sequences: 8 } learning_rate { constant: 0.003 } }
    phase { sequence_length: 20 tokens: 300 micro_batch: 1 batch { sequences: 4 } learning_rate { constant: 0.001 } } })");
  TinyRun whole(config);
  ASSERT_TRUE(whole.trainer->Run().ok());
  for (int steps : {1, 4, 5}) {
    TrainOptions options;
    options.max_steps = steps;
    TinyRun first(config, 1, options), second(config);
    EXPECT_EQ(*first.trainer->Run(), StopReason::kStepLimit);
    const TrainState& from = first.trainer->state();
    TrainState& to = second.trainer->state();
    for (size_t p = 0; p < from.parameters().size(); ++p) {
      const ParameterState &a = from.parameter(p), &b = to.parameter(p);
      for (auto [x, y] :
           {std::pair(a.master, b.master), std::pair(a.m, b.m), std::pair(a.v, b.v), std::pair(a.ema, b.ema)}) {
        if (x) std::memcpy(y.data, x.data, x.bytes());
      }
    }
    ASSERT_TRUE(second.trainer->RefreshCompute().ok());
    to.position = from.position;
    EXPECT_EQ(*second.trainer->Run(), StopReason::kFinished);
    EXPECT_EQ(Sha256OfState(to), Sha256OfState(whole.trainer->state())) << "carried over after step " << steps;
    EXPECT_EQ(to.position, whole.trainer->state().position);
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, CarriedOver, testing::Values("BF16", "FP8"));

class MemoryTest : public testing::TestWithParam<const char*> {};

TEST_P(MemoryTest, IsExactlyWhatWasMeasured) {
  const config::RunConfig config = TinyConfig(GetParam(), R"(train { lanes: 2
    phase { sequence_length: 12 steps: 2 micro_batch: 2 batch { sequences: 8 } learning_rate { constant: 0.003 } }
    phase { sequence_length: 20 steps: 2 micro_batch: 2 batch { sequences: 8 } learning_rate { constant: 0.001 } } })");
  TinyRun run(config);
  Recorder recorder;
  run.trainer->AddObserver(recorder);
  ASSERT_TRUE(run.trainer->Run().ok());
  EXPECT_EQ(run.trainer->arena_high_water_bytes(), run.trainer->arena_bytes());
  EXPECT_THAT(run.trainer->memory_table(), HasSubstr("master_weights"));
  EXPECT_THAT(run.trainer->memory_table(), HasSubstr("activations"));
}

TEST_P(MemoryTest, AStepAllocatesNothingOnTheHeap) {
  TinyRun run(TinyConfig(GetParam(), "train { lanes: 3 }"), 2);
  for (int i = 0; i < 3; ++i) run.Step();
  const int64_t before = HeapCalls();
  ASSERT_TRUE(run.trainer->Step().ok());
  EXPECT_EQ(HeapCalls() - before, 0);
}

INSTANTIATE_TEST_SUITE_P(Precisions, MemoryTest, testing::Values("BF16", "FP8"));

// Validation sequences that do not fill a micro-batch are padded with sequences that do not count: micro-batches of any
// size give one mean, but for the order in which doubles are added.
TEST(TrainerTest, ValidationDoesNotDependOnTheMicroBatch) {
  std::vector<double> nats;
  for (int micro_batch : {1, 2, 4, 8}) {
    TinyRun run(TinyConfig("FP32", absl::StrCat("train { phase { sequence_length: 12 steps: 1 micro_batch: ",
                                                micro_batch, " batch { sequences: 8 } learning_rate { constant: 0 } } ",
                                                "validation { sequences: 5 } }")));
    const auto result = run.trainer->RunValidation();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ((*result)->targets, 5 * 12);
    EXPECT_EQ((*result)->sequences, 5);
    nats.push_back((*result)->nats_per_token);
  }
  EXPECT_NEAR(nats[0], std::log(61.0), 0.3);
  for (double n : nats) EXPECT_NEAR(n, nats[0], 1e-12);
}

TEST(TrainerTest, ValidationUsesNoMoreThanThereIs) {
  const config::RunConfig config = TinyConfig();
  TrainData data = FormulaData(config);
  data.validation_samples = 3;
  TinyRun run(config, 1, {}, data);
  EXPECT_EQ((*run.trainer->RunValidation())->sequences, 3);
  data.validation = nullptr;
  TinyRun without(config, 1, {}, data);
  EXPECT_FALSE(without.trainer->RunValidation()->has_value());
}

TEST(TrainerTest, TheBatchGrowsWithTheRamp) {
  TinyRun run(TinyConfig("BF16", R"(train { lanes: 2 phase {
    sequence_length: 12 tokens: 600 micro_batch: 1
    batch { ramp { from_sequences: 4 to_sequences: 12 over_tokens: 200 } } learning_rate { constant: 0.001 } } })"));
  std::vector<int64_t> sequences, first_samples;
  while (!run.trainer->schedule().Done(run.trainer->state().position)) {
    const StepResult result = run.Step();
    sequences.push_back(result.plan.sequences);
    first_samples.push_back(result.plan.first_sample);
    EXPECT_NEAR(result.loss, std::log(61.0), 0.5);
  }
  EXPECT_THAT(sequences, ElementsAre(4, 4, 6, 10, 12, 12, 12));
  EXPECT_THAT(first_samples, ElementsAre(0, 4, 8, 14, 24, 36, 48));
  EXPECT_EQ(run.trainer->arena_high_water_bytes(), run.trainer->arena_bytes());
}

TEST(TrainerTest, MemoryThatIsNotThereIsSaid) {
  const absl::StatusOr<MemoryBlock> block = MemoryBlock::Map(int64_t{1} << 60);
  EXPECT_EQ(block.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(block.status().message(), HasSubstr("1152921504606846976 bytes"));
}

TEST(TrainerTest, WhatCannotRunIsRefused) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const config::RunConfig config = TinyConfig("FP8", "precision { fp8 { combine_format: E4M3 } }");
  const auto trainer = Trainer::Create(config, FormulaData(config), *backend, RealClock(), {});
  EXPECT_EQ(trainer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(trainer.status().message(), HasSubstr("precision.fp8.combine_format"));
}

}  // namespace

}  // namespace shoestring
