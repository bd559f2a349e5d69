// Tests of the way in: into a checkpoint that a run goes on from, and what is said of directories that do not fit.
#include "configs/print.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/export/hf_fixture.h"
#include "trainer/checkpoint/check.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/train_state_io.h"
#include "trainer/memory_block.h"
#include "trainer/train_state.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

checkpoint::SnapshotHeader HeaderOf(const config::RunConfig& run) {
  checkpoint::SnapshotHeader header;
  header.set_config_textproto(config::CanonicalText(run));
  header.set_tokenizer_fingerprint("abc");
  return header;
}

struct Case {
  const char* name;
  DType dtype;
  std::vector<std::string> overrides;
};

class HfImportTest : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Kinds, HfImportTest,
                         testing::Values(Case{"f32", DType::kF32, {}}, Case{"bf16", DType::kBF16, {}},
                                         Case{"fp8", DType::kE4M3, {"model.hidden=160", "model.dense_ffn=300"}},
                                         Case{"no_query_latent", DType::kF32, {"model.attention.q_lora_rank=0"}},
                                         Case{"no_mtp", DType::kF32, {"model.mtp_depth=0"}},
                                         Case{"two_mtp", DType::kBF16, {"model.mtp_depth=2"}},
                                         Case{"f32_moments", DType::kF32, {"precision.moments=MOMENTS_FP32"}}),
                         [](const auto& info) { return std::string(info.param.name); });

// The state that a run of this config would read at its start, filled from the checkpoint.
class LoadedState {
 public:
  LoadedState(const config::RunConfig& run, const OpenedCheckpoint& checkpoint)
      : held_(HeldTable::Whole(BuildParameterTable(run.model()), /*copies=*/true)) {
    StateFormat format;
    format.moments = run.precision().moments() == config::PrecisionConfig::MOMENTS_BF16 ? DType::kBF16 : DType::kF32;
    format.ema = run.train().has_ema();
    Arena measuring = Arena::Measuring();
    TrainState(measuring, held_, format);
    memory_.emplace(*MemoryBlock::Map(measuring.high_water_bytes()));
    Arena arena(memory_->data(), memory_->size_bytes());
    state_.emplace(arena, held_, format);
    status = ReadState(Fs(), checkpoint, StateTensorsOf(*state_), Coverage::kWholeState);
  }
  const TrainState& state() const { return *state_; }

  absl::Status status;

 private:
  const HeldTable held_;
  std::optional<MemoryBlock> memory_;
  std::optional<TrainState> state_;
};

std::string BytesOfView(const View& view) {
  return {reinterpret_cast<const char*>(view.data), static_cast<size_t>(view.bytes())};
}

TEST_P(HfImportTest, BeginsARunAtStepZero) {
  const config::RunConfig run = SmallConfig(GetParam().overrides);
  Weights weights(run.model()), expected(run.model());
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), run.model(), weights, {.dtype = GetParam().dtype, .max_shard_bytes = 20000});
  const absl::Status as_memory = ImportHf(Fs(), dir.File("hf"), run.model(), expected.views, {}).status();
  ASSERT_TRUE(as_memory.ok()) << as_memory;
  if (GetParam().dtype == DType::kF32) {
    for (const Parameter& p : weights.table) EXPECT_EQ(expected.Bytes(p.name), weights.Bytes(p.name)) << p.name;
  }

  const auto result = ImportHfCheckpoint(Fs(), dir.File("hf"), run, HeaderOf(run), dir.File("checkpoints"), {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->saved.path, dir.File("checkpoints/step_0000000"));
  EXPECT_GT(result->imported.tensors, 40);
  const CheckReport report = CheckCheckpoint(Fs(), result->saved.path);
  EXPECT_THAT(report.problems, IsEmpty());
  EXPECT_EQ(report.state_digest, result->saved.state_digest);
  const auto found = FindNewest(Fs(), dir.File("checkpoints"));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->header().step(), 0);
  EXPECT_EQ(found->header().tokenizer_fingerprint(), "abc");

  const LoadedState loaded(run, *found);
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  const TrainState& state = loaded.state();
  for (size_t i = 0; i < state.table().size(); ++i) {
    const Parameter& p = state.table()[i];
    const ParameterState& views = state.parameter(i);
    EXPECT_EQ(BytesOfView(views.master), expected.Bytes(p.name)) << p.name;
    if (!p.trained) continue;
    EXPECT_EQ(views.m.dtype == DType::kF32, GetParam().name == std::string("f32_moments"));
    EXPECT_EQ(BytesOfView(views.m), std::string(static_cast<size_t>(views.m.bytes()), '\0')) << p.name;
    EXPECT_EQ(BytesOfView(views.v), std::string(static_cast<size_t>(views.v.bytes()), '\0')) << p.name;
    ASSERT_TRUE(views.ema);
    EXPECT_EQ(BytesOfView(views.ema), expected.Bytes(p.name)) << p.name;
  }

  // And out again: the same files.
  if (GetParam().dtype == DType::kE4M3) return;  // quantised twice
  const auto again = ExportCheckpointHf(Fs(), result->saved.path, StateKind::kWeights, dir.File("again"),
                                        {.dtype = GetParam().dtype, .max_shard_bytes = 20000});
  ASSERT_TRUE(again.ok()) << again.status();
  const std::vector<std::string> names = *Fs().List(dir.File("hf"));
  for (const std::string& name : names) {
    if (name == "config.json") continue;  // another longest sequence
    EXPECT_EQ(*ReadFile(Fs(), JoinPath(dir.File("again"), name)), *ReadFile(Fs(), JoinPath(dir.File("hf"), name)));
  }
}

class SoftmaxImportTest : public testing::TestWithParam<std::vector<std::string>> {};
INSTANTIATE_TEST_SUITE_P(Experts, SoftmaxImportTest,
                         testing::Values(std::vector<std::string>{},
                                         std::vector<std::string>{"model.moe.routed_experts=1",
                                                                  "model.moe.active_experts=1", "model.moe.groups=1"}),
                         [](const auto& info) { return std::string(info.param.empty() ? "several" : "one"); });

TEST_P(SoftmaxImportTest, BeginsWithoutBiases) {
  std::vector<std::string> overrides = GetParam();
  for (const char* set : {"model.moe.gate=SOFTMAX", "model.moe.group_score=MAX", "model.moe.renormalize=false",
                          "model.mtp_depth=0", "model.attention.q_lora_rank=0"}) {
    overrides.emplace_back(set);
  }
  const config::RunConfig run = SmallConfig(overrides);
  Weights weights(run.model());
  weights.Fill();
  for (const Parameter& p : weights.table) {
    if (!p.trained) std::memset(weights.views[p.name].data, 0, static_cast<size_t>(weights.views[p.name].bytes()));
  }
  const TempDir dir;
  Export(dir.File("hf"), run.model(), weights, {.dtype = DType::kF32});
  const auto problems = FindHfMismatches(Fs(), dir.File("hf"), run.model(), {}, true);
  ASSERT_TRUE(problems.ok()) << problems.status();
  EXPECT_THAT(*problems, IsEmpty());
  const auto result = ImportHfCheckpoint(Fs(), dir.File("hf"), run, HeaderOf(run), dir.File("checkpoints"), {});
  ASSERT_TRUE(result.ok()) << result.status();
  const auto opened = OpenCheckpoint(Fs(), result->saved.path);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const LoadedState loaded(run, *opened);
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  for (size_t i = 0; i < weights.table.size(); ++i) {
    EXPECT_EQ(BytesOfView(loaded.state().parameter(i).master), weights.Bytes(weights.table[i].name));
  }
}

TEST(HfImportRunTest, TheSameImportAgainChangesNothing) {
  const config::RunConfig run = SmallConfig();
  Weights weights(run.model());
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), run.model(), weights, {.dtype = DType::kBF16});
  const auto import = [&] {
    return ImportHfCheckpoint(Fs(), dir.File("hf"), run, HeaderOf(run), dir.File("checkpoints"), {});
  };
  const auto first = import(), second = import();
  ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
  EXPECT_FALSE(first->saved.was_there);
  EXPECT_TRUE(second->saved.was_there);
  EXPECT_EQ(first->saved.state_digest, second->saved.state_digest);
}

TEST(HfImportRunTest, ModulesThatTheRunNeedsCannotBeLeftOut) {
  const config::RunConfig run = SmallConfig();
  Weights weights(run.model());
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), run.model(), weights, {.dtype = DType::kBF16});
  const absl::Status status =
      ImportHfCheckpoint(Fs(), dir.File("hf"), run, HeaderOf(run), dir.File("checkpoints"), {.mtp = false}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--skip-mtp"));
  EXPECT_FALSE(Exists(Fs(), dir.File("checkpoints/LATEST")));
}

TEST(HfMismatchTest, EachFieldHasALineWithItsPlaceAndTheRemedy) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model);
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kBF16});
  config::Locations locations;
  locations.Set("model.heads", "run.textproto:9:3");
  const auto lines = [&](const std::vector<std::string>& overrides, bool mtp = true) {
    const auto problems = FindHfMismatches(Fs(), dir.File("hf"), SmallConfig(overrides).model(), locations, mtp);
    CHECK(problems.ok());
    std::vector<std::string> text;
    for (const config::Problem& problem : *problems) text.push_back(problem.ToString());
    return text;
  };
  const std::string json = dir.File("hf/config.json");
  EXPECT_THAT(lines({}), IsEmpty());
  EXPECT_THAT(lines({"model.init_std=0.3"}), IsEmpty());
  EXPECT_THAT(
      lines({"model.heads=4", "model.moe.renormalize=false"}),
      ElementsAre("run.textproto:9:3: model.heads: is 4, but " + json + " means 2; say model.heads=2",
                  "model.moe.renormalize: is false, but " + json + " means true; say model.moe.renormalize=true"));
  EXPECT_THAT(lines({"model.yarn.factor=40"}),
              ElementsAre("model.yarn.factor: is 40, but " + json + " has no such thing; leave it out"));
  EXPECT_THAT(lines({"model.mtp_depth=0"}), ElementsAre("model.mtp_depth: is 0, but " + json +
                                                        " means 1; say model.mtp_depth=1, or 0 with --skip-mtp"));
  EXPECT_THAT(lines({"model.mtp_depth=0"}, false), IsEmpty());
  EXPECT_EQ(lines({}, false).size(), 1u);
  EXPECT_EQ(lines({"model.moe.group_score=MAX"}).size(), 1u);
}

TEST(HfMismatchTest, WhatHasNoEffectMayDiffer) {
  const config::ModelConfig model =
      SmallConfig({"model.moe.groups_kept=2", "model.dense_layers=0", "model.moe.group_score=MAX"}).model();
  Weights weights(model);
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kBF16});
  const auto problems = FindHfMismatches(Fs(), dir.File("hf"), model, {}, true);
  ASSERT_TRUE(problems.ok()) << problems.status();
  EXPECT_THAT(*problems, IsEmpty());
}

TEST(HfMismatchTest, ABadConfigJsonIsNamed) {
  const TempDir dir;
  ASSERT_TRUE(WriteFile(Fs(), dir.File("config.json"), "{").ok());
  EXPECT_EQ(ReadHfModel(Fs(), dir.path()).status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(WriteFile(Fs(), dir.File("config.json"), "{\"model_type\": \"llama\", \"model_type\": \"x\"}").ok());
  EXPECT_EQ(ReadHfModel(Fs(), dir.path()).status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(WriteFile(Fs(), dir.File("config.json"), "{\"model_type\": \"llama\"}").ok());
  const absl::Status status = ReadHfModel(Fs(), dir.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(dir.File("config.json: model_type: \"llama\" is unknown")));
}

// Each spoils one thing of a good directory and says what must be said.
class HfSpoiledTest : public testing::Test {
 protected:
  HfSpoiledTest() : model_(SmallConfig().model()), weights_(model_), read_(model_) {
    weights_.Fill();
    Export(dir_.File("hf"), model_, weights_, {.dtype = DType::kF32});
    good_ = ReadRaw(dir_.File("hf"));
  }
  absl::Status Import(const RawTensors& tensors) {
    WriteRaw(dir_.File("hf/model.safetensors"), tensors);
    return ImportHf(Fs(), dir_.File("hf"), model_, read_.views, {}).status();
  }

  const config::ModelConfig model_;
  Weights weights_, read_;
  const TempDir dir_;
  RawTensors good_;
};

TEST_F(HfSpoiledTest, EveryMisfitIsALine) {
  ASSERT_TRUE(Import(good_).ok());
  RawTensors bad = good_;
  bad.erase("model.norm.weight");
  bad["model.embed_tokens.weight"].dtype = "I32";
  bad["lm_head.weight"].shape = {16, 40};
  bad["model.layers.1.mlp.experts.3.up_proj.bias"] = {"F32", {1}, std::string(4, '\0')};
  const absl::Status status = Import(bad);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(status.message()),
            dir_.File("hf") +
                ": the weights do not fit the model\n"
                "  model.embed_tokens.weight is I32 [40, 16], not F32, BF16 or F8_E4M3 [40, 16]\n"
                "  model.norm.weight is missing\n"
                "  lm_head.weight is F32 [16, 40], not F32, BF16 or F8_E4M3 [40, 16]\n"
                "  model.layers.1.mlp.experts.3.up_proj.bias is not known to this model");
}

TEST_F(HfSpoiledTest, HalfPrecisionIsRefused) {
  RawTensors bad = good_;
  RawTensor& norm = bad["model.norm.weight"];
  norm = {"F16", norm.shape, norm.bytes.substr(norm.bytes.size() / 2)};
  EXPECT_THAT(std::string(Import(bad).message()), HasSubstr("model.norm.weight is F16 [16], not F32 or BF16 [16]"));
}

TEST_F(HfSpoiledTest, CopiesMayBeAbsent) {
  RawTensors without = good_;
  EXPECT_EQ(without.erase("model.layers.3.embed_tokens.weight"), 1u);
  EXPECT_EQ(without.erase("model.layers.3.shared_head.head.weight"), 1u);
  EXPECT_TRUE(Import(without).ok());
  for (const Parameter& p : weights_.table) EXPECT_EQ(read_.Bytes(p.name), weights_.Bytes(p.name)) << p.name;
}

TEST_F(HfSpoiledTest, RotaryTablesOfOldFilesSayNothing) {
  RawTensors with = good_;
  with["model.layers.0.self_attn.rotary_emb.inv_freq"] = {"F32", {2}, std::string(8, '\0')};
  EXPECT_TRUE(Import(with).ok());
}

TEST_F(HfSpoiledTest, AFileThatIsCutShortIsRefused) {
  const std::string path = dir_.File("hf/model.safetensors");
  const std::string whole = *ReadFile(Fs(), path);
  for (const size_t size : {whole.size() - 1, whole.size() / 2, size_t{100}, size_t{7}, size_t{0}}) {
    ASSERT_TRUE(WriteFile(Fs(), path, whole.substr(0, size)).ok());
    const absl::Status status = ImportHf(Fs(), dir_.File("hf"), model_, read_.views, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
  }
}

TEST_F(HfSpoiledTest, AMixtureOfFormatsIsRead) {
  RawTensors mixed = good_;
  RawTensor& head = mixed["lm_head.weight"];
  std::string halves;
  for (size_t i = 0; i < head.bytes.size(); i += 4) halves += head.bytes.substr(i + 2, 2);  // cut, not rounded
  head = {"BF16", head.shape, halves};
  mixed.erase("model.layers.3.shared_head.head.weight");
  ASSERT_TRUE(Import(mixed).ok());
  std::string expected = weights_.Bytes("lm_head.weight");
  for (size_t i = 0; i < expected.size(); i += 4) expected[i] = expected[i + 1] = '\0';
  EXPECT_EQ(read_.Bytes("lm_head.weight"), expected);
  EXPECT_EQ(read_.Bytes("model.embed_tokens.weight"), weights_.Bytes("model.embed_tokens.weight"));
}

}  // namespace
}  // namespace shoestring
