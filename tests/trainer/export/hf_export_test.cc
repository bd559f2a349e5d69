// Tests of Hugging Face directories: names, shapes, bits, and what is said of directories that do not fit.
#include <cstring>
#include <string>
#include <vector>

#include "base/fault_file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/base/temp_dir.h"
#include "tests/data/tokenizer_fixture.h"
#include "tests/trainer/export/hf_fixture.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/save.h"
#include "trainer/export/export_hf.h"
#include "trainer/export/import_hf.h"
#include "trainer/params.h"

namespace shoestring {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(HfExportTest, NamesShapesAndDTypesAreDeepSeeks) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kBF16});
  EXPECT_THAT(*Fs().List(dir.File("hf")), ElementsAre("config.json", "generation_config.json", "model.safetensors"));
  auto shapes = ShapesIn(dir.File("hf/model.safetensors"));
  EXPECT_EQ(shapes["model.embed_tokens.weight"], "BF16 40 16");
  EXPECT_EQ(shapes["lm_head.weight"], "BF16 40 16");
  EXPECT_EQ(shapes["model.norm.weight"], "BF16 16");
  EXPECT_EQ(shapes["model.layers.0.self_attn.q_a_proj.weight"], "BF16 6 16");
  EXPECT_EQ(shapes["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"], "BF16 80 16");
  EXPECT_EQ(shapes["model.layers.0.self_attn.q_a_layernorm.weight"], "BF16 6");
  EXPECT_EQ(shapes["model.layers.0.mlp.gate_proj.weight"], "BF16 24 16");
  EXPECT_EQ(shapes["model.layers.0.mlp.down_proj.weight"], "BF16 16 24");
  EXPECT_EQ(shapes["model.layers.2.mlp.experts.3.up_proj.weight"], "BF16 5 16");
  EXPECT_EQ(shapes["model.layers.2.mlp.experts.3.down_proj.weight"], "BF16 16 5");
  EXPECT_EQ(shapes["model.layers.2.mlp.shared_experts.gate_proj.weight"], "BF16 5 16");
  EXPECT_EQ(shapes["model.layers.2.mlp.gate.weight"], "BF16 4 16");
  EXPECT_EQ(shapes["model.layers.2.mlp.gate.e_score_correction_bias"], "F32 4");
  EXPECT_EQ(shapes["model.layers.3.eh_proj.weight"], "BF16 16 32");
  EXPECT_EQ(shapes["model.layers.3.embed_tokens.weight"], "BF16 40 16");
  EXPECT_EQ(shapes["model.layers.3.shared_head.head.weight"], "BF16 40 16");
  EXPECT_EQ(shapes["model.layers.3.shared_head.norm.weight"], "BF16 16");
  EXPECT_EQ(shapes["model.layers.3.mlp.experts.0.gate_proj.weight"], "BF16 5 16");
  EXPECT_FALSE(shapes.contains("model.layers.0.mlp.gate_up_proj.weight"));
  const auto json = nlohmann::json::parse(*ReadFile(Fs(), dir.File("hf/config.json")));
  EXPECT_EQ(json["num_nextn_predict_layers"], 1);
  EXPECT_EQ(json["torch_dtype"], "bfloat16");
}

TEST(HfExportTest, F32GoesOutAndInBitForBit) {
  for (const int64_t max_shard_bytes : {int64_t{1} << 40, int64_t{3000}}) {
    const config::ModelConfig model = SmallConfig().model();
    Weights weights(model), read(model);
    weights.Fill();
    const TempDir dir;
    Export(dir.File("hf"), model, weights, {.dtype = DType::kF32, .max_shard_bytes = max_shard_bytes});
    EXPECT_EQ(Exists(Fs(), dir.File("hf/model.safetensors.index.json")), max_shard_bytes == 3000);
    const auto imported_model = ReadHfModel(Fs(), dir.File("hf"));
    ASSERT_TRUE(imported_model.ok()) << imported_model.status();
    const auto imported = ImportHf(Fs(), dir.File("hf"), *imported_model, read.views, {});
    ASSERT_TRUE(imported.ok()) << imported.status();
    for (const Parameter& p : weights.table) EXPECT_EQ(read.Bytes(p.name), weights.Bytes(p.name)) << p.name;
  }
}

TEST(HfExportTest, EveryPartIsTheRightRows) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kF32});
  const RawTensors written = ReadRaw(dir.File("hf"));
  const auto bytes_of = [&](const std::string& name) { return written.at(name).bytes; };
  const std::string fused = weights.Bytes("model.layers.1.mlp.experts.gate_up_proj");  // 4 x (5 gate, 5 up) x 16
  EXPECT_EQ(bytes_of("model.layers.1.mlp.experts.2.gate_proj.weight"), fused.substr(2 * 10 * 64, 5 * 64));
  EXPECT_EQ(bytes_of("model.layers.1.mlp.experts.2.up_proj.weight"), fused.substr((2 * 10 + 5) * 64, 5 * 64));
  const std::string qkv = weights.Bytes("model.layers.1.self_attn.qkv_a_proj.weight");
  EXPECT_EQ(bytes_of("model.layers.1.self_attn.kv_a_proj_with_mqa.weight"), qkv.substr(6 * 64));
  EXPECT_EQ(bytes_of("model.layers.3.embed_tokens.weight"), weights.Bytes("model.embed_tokens.weight"));
}

TEST(HfExportTest, BF16RoundsToNearestEvenAndComesBackExactly) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model), read(model), again(model, DType::kBF16);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kBF16});
  ASSERT_TRUE(ImportHf(Fs(), dir.File("hf"), model, read.views, {}).ok());
  ASSERT_TRUE(ImportHf(Fs(), dir.File("hf"), model, again.views, {}).ok());
  for (const Parameter& p : weights.table) {
    const auto* before = weights.views[p.name].as<float>();
    const auto* after = read.views[p.name].as<float>();
    for (int64_t i = 0; i < p.elements(); ++i) {
      const float expected = p.trained ? static_cast<float>(BF16(before[i])) : before[i];
      ASSERT_EQ(after[i], expected) << p.name << " " << i;
      ASSERT_EQ(again.views[p.name].as<BF16>()[i].bits, BF16(before[i]).bits) << p.name << " " << i;
    }
  }
}

TEST(HfExportTest, SkipMtpLeavesTheModulesOut) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model), read(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("without"), model, weights, {.dtype = DType::kF32, .mtp = false});
  EXPECT_EQ(ReadHfModel(Fs(), dir.File("without"))->mtp_depth(), 0);
  const absl::Status missing = ImportHf(Fs(), dir.File("without"), model, read.views, {}).status();
  EXPECT_THAT(std::string(missing.message()), HasSubstr("model.layers.3.enorm.weight is missing"));
  ASSERT_TRUE(ImportHf(Fs(), dir.File("without"), model, read.views, {.mtp = false}).ok());
  // The other way round: modules in the file, and a model that wants none.
  Export(dir.File("with"), model, weights, {.dtype = DType::kF32});
  const config::ModelConfig plain = SmallConfig({"model.mtp_depth=0"}).model();
  Weights plain_weights(plain);
  const absl::Status extra = ImportHf(Fs(), dir.File("with"), plain, plain_weights.views, {}).status();
  EXPECT_THAT(std::string(extra.message()), HasSubstr("model.layers.3.eh_proj.weight is not known"));
  ASSERT_TRUE(ImportHf(Fs(), dir.File("with"), plain, plain_weights.views, {.mtp = false}).ok());
  EXPECT_EQ(plain_weights.Bytes("lm_head.weight"), weights.Bytes("lm_head.weight"));
}

TEST(HfExportTest, WhatDoesNotFitIsNamed) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kF32});
  const config::ModelConfig wider = SmallConfig({"model.dense_ffn=32", "model.moe.routed_experts=6"}).model();
  Weights other(wider);
  const absl::Status status = ImportHf(Fs(), dir.File("hf"), wider, other.views, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("model.layers.0.mlp.gate_proj.weight is F32 [24, 16], not F32, BF16 or F8_E4M3 [32, 16]"),
                    HasSubstr("model.layers.1.mlp.experts.5.up_proj.weight is missing")));
  MemoryWeights empty({});
  const absl::Status absent = ExportHf(Fs(), dir.File("none"), model, empty, {}).status();
  EXPECT_THAT(std::string(absent.message()), HasSubstr("is missing"));
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre("hf"));
  MemoryWeights source = weights.Source();
  EXPECT_EQ(ExportHf(Fs(), dir.File("hf"), model, source, {}).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST(HfExportTest, ACopyThatDiffersIsRefused) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model), read(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kF32});
  RawTensors tensors = ReadRaw(dir.File("hf"));
  tensors.at("model.layers.3.embed_tokens.weight").bytes[5] ^= 1;
  WriteRaw(dir.File("hf/model.safetensors"), tensors);
  const absl::Status status = ImportHf(Fs(), dir.File("hf"), model, read.views, {}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.layers.3.embed_tokens.weight differs"));
}

TEST(HfExportTest, BadIndexesAreRefused) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model), read(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kF32, .max_shard_bytes = 20000});
  const std::string path = dir.File("hf/model.safetensors.index.json");
  const nlohmann::json good = nlohmann::json::parse(*ReadFile(Fs(), path));
  EXPECT_EQ(good["metadata"]["total_size"].get<int64_t>() % 4, 0);
  const auto import = [&](const std::string& text) {
    EXPECT_TRUE(WriteFile(Fs(), path, text).ok());
    return ImportHf(Fs(), dir.File("hf"), model, read.views, {}).status();
  };
  EXPECT_TRUE(import(good.dump()).ok());
  nlohmann::json bad = good;
  bad["weight_map"]["lm_head.weight"] = "../model.safetensors";
  EXPECT_THAT(std::string(import(bad.dump()).message()), HasSubstr("is no file name"));
  bad["weight_map"]["lm_head.weight"] = 3;
  EXPECT_THAT(std::string(import(bad.dump()).message()), HasSubstr("is no file name"));
  bad = good;
  bad["weight_map"].erase("lm_head.weight");
  EXPECT_THAT(std::string(import(bad.dump()).message()), HasSubstr("holds lm_head.weight, which"));
  bad = good;
  bad["weight_map"]["ghost"] = good["weight_map"]["lm_head.weight"];
  EXPECT_THAT(std::string(import(bad.dump()).message()), HasSubstr("lacks ghost"));
  EXPECT_THAT(std::string(import("{}").message()), HasSubstr("weight_map"));
  EXPECT_THAT(std::string(import("{").message()), HasSubstr(path));
  bad["weight_map"]["ghost"] = "absent.safetensors";
  EXPECT_EQ(import(bad.dump()).code(), absl::StatusCode::kNotFound);
}

TEST(HfExportTest, SoftmaxGatesHaveNoRoutingBiases) {
  const config::ModelConfig model =
      SmallConfig({"model.moe.gate=SOFTMAX", "model.moe.group_score=MAX", "model.moe.renormalize=false",
                   "model.mtp_depth=0", "model.attention.q_lora_rank=0"})
          .model();
  Weights weights(model), read(model);
  weights.Fill();
  read.Fill();
  const TempDir dir;
  MemoryWeights source = weights.Source();
  const absl::Status refused = ExportHf(Fs(), dir.File("hf"), model, source, {}).status();
  EXPECT_THAT(std::string(refused.message()), HasSubstr("e_score_correction_bias is not 0"));
  for (const Parameter& p : weights.table) {
    if (!p.trained) std::memset(weights.views[p.name].data, 0, static_cast<size_t>(weights.views[p.name].bytes()));
  }
  Export(dir.File("hf"), model, weights, {.dtype = DType::kF32});
  auto shapes = ShapesIn(dir.File("hf/model.safetensors"));
  EXPECT_FALSE(shapes.contains("model.layers.1.mlp.gate.e_score_correction_bias"));
  EXPECT_EQ(shapes["model.layers.1.self_attn.q_proj.weight"], "F32 96 16");
  ASSERT_TRUE(ImportHf(Fs(), dir.File("hf"), model, read.views, {}).ok());
  for (const Parameter& p : weights.table) EXPECT_EQ(read.Bytes(p.name), weights.Bytes(p.name)) << p.name;
}

TEST(HfExportTest, FromACheckpoint) {
  const config::RunConfig run = SmallConfig();
  Weights weights(run.model()), read(run.model());
  weights.Fill();
  const TempDir dir;
  const auto saved = SaveCheckpoint(Fs(), dir.File("checkpoints"), weights.SnapshotOf(run));
  ASSERT_TRUE(saved.ok()) << saved.status();
  const auto exported =
      ExportCheckpointHf(Fs(), saved->path, StateKind::kWeights, dir.File("hf"), {.dtype = DType::kF32});
  ASSERT_TRUE(exported.ok()) << exported.status();
  ASSERT_TRUE(ImportHf(Fs(), dir.File("hf"), run.model(), read.views, {}).ok());
  for (const Parameter& p : weights.table) EXPECT_EQ(read.Bytes(p.name), weights.Bytes(p.name)) << p.name;
  const auto json = nlohmann::json::parse(*ReadFile(Fs(), dir.File("hf/config.json")));
  EXPECT_EQ(json["max_position_embeddings"], 256);  // the longest sequence that was trained
  const absl::Status no_ema =
      ExportCheckpointHf(Fs(), saved->path, StateKind::kEma, dir.File("ema"), {.dtype = DType::kF32}).status();
  EXPECT_THAT(std::string(no_ema.message()), HasSubstr("holds no ema of"));
}

// The config.json of a checkpoint whose next step is the given one.
nlohmann::json ConfigOfCheckpoint(const config::RunConfig& run, int phase, int64_t phase_step) {
  Weights weights(run.model());
  weights.Fill();
  Snapshot snapshot = weights.SnapshotOf(run);
  snapshot.header.set_phase(phase);
  snapshot.header.set_phase_step(phase_step);
  const TempDir dir;
  const auto saved = SaveCheckpoint(Fs(), dir.File("checkpoints"), snapshot);
  EXPECT_TRUE(saved.ok()) << saved.status();
  const absl::Status exported = ExportCheckpointHf(Fs(), saved->path, StateKind::kWeights, dir.File("hf"), {}).status();
  EXPECT_TRUE(exported.ok()) << exported;
  return nlohmann::json::parse(*ReadFile(Fs(), dir.File("hf/config.json")));
}

TEST(HfExportTest, ContextExtensionIsThatOfThePhaseBehindTheCheckpoint) {
  const std::string phase = "train.phase[0].yarn.";
  const config::RunConfig run = SmallConfig({phase + "factor=4", phase + "original_length=64", phase + "beta_fast=32",
                                             phase + "beta_slow=1", phase + "mscale=1", phase + "mscale_all_dim=1"});
  EXPECT_TRUE(ConfigOfCheckpoint(run, 0, 0)["rope_scaling"].is_null());  // before the first step
  EXPECT_EQ(ConfigOfCheckpoint(run, 0, 5)["rope_scaling"]["factor"], 4);
  EXPECT_EQ(ConfigOfCheckpoint(run, run.train().phase_size(), 0)["rope_scaling"]["factor"], 4);  // no phase to come
}

TEST(HfExportTest, PositionsAreThoseOfThePhasesBehindTheCheckpoint) {
  config::RunConfig run = SmallConfig();
  run.mutable_train()->clear_phase();
  for (const int length : {64, 256, 128, 512}) run.mutable_train()->add_phase()->set_sequence_length(length);
  const auto positions = [&](int phase, int64_t step) {
    return ConfigOfCheckpoint(run, phase, step)["max_position_embeddings"].get<int>();
  };
  EXPECT_THAT((std::vector<int>{positions(0, 0), positions(0, 1), positions(1, 0), positions(1, 1), positions(2, 1),
                                positions(3, 0), positions(3, 1), positions(4, 0)}),
              ElementsAre(64, 64, 64, 256, 256, 256, 512, 512));
}

TEST(HfExportTest, TheTokenizerComesAlong) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model);
  const TempDir dir;
  const std::string json = MakeTokenizer(SmallSpec({{"a", "b"}})).ToJson();
  ASSERT_TRUE(WriteFile(Fs(), dir.File("t.json"), json).ok());
  Export(dir.File("hf"), model, weights, {.tokenizer_json = dir.File("t.json")});
  EXPECT_EQ(*ReadFile(Fs(), dir.File("hf/tokenizer.json")), json);
  const auto made = nlohmann::json::parse(*ReadFile(Fs(), dir.File("hf/tokenizer_config.json")));
  EXPECT_EQ(made["eos_token"], DeepSeekV3SpecialTokens()[1]);
  EXPECT_EQ(made["tokenizer_class"], "PreTrainedTokenizerFast");
  ASSERT_TRUE(WriteFile(Fs(), dir.File("t.json"), "{").ok());
  MemoryWeights source = weights.Source();
  const absl::Status bad =
      ExportHf(Fs(), dir.File("bad"), model, source, {.tokenizer_json = dir.File("t.json")}).status();
  EXPECT_THAT(std::string(bad.message()), HasSubstr(dir.File("t.json")));
  EXPECT_FALSE(Exists(Fs(), dir.File("bad")));
}

TEST(HfExportTest, AFailingDiskLeavesNoDirectory) {
  const config::ModelConfig model = SmallConfig({"model.layers=2", "model.mtp_depth=0"}).model();
  Weights weights(model);
  weights.Fill();
  MemoryWeights source = weights.Source();
  int64_t mutations = 1;
  for (int64_t n = 0; n < mutations; n += 5) {
    const TempDir dir;
    FaultFileSystem healthy(Fs()), faulty(Fs());
    ASSERT_TRUE(ExportHf(healthy, dir.File("probe"), model, source, {}).ok());
    mutations = healthy.mutation_count() - 2;  // before the rename
    faulty.InjectAt(n, Fault::kFail);
    EXPECT_EQ(ExportHf(faulty, dir.File("hf"), model, source, {}).status().code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(*Fs().List(dir.path()), ElementsAre("probe")) << n;
  }
}

}  // namespace
}  // namespace shoestring
