// Tests of the Hugging Face config.json: round trips, the released DeepSeek-V3 file, and what is refused.
#include "configs/hf_config.h"

#include "configs/print.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "nlohmann/json.hpp"
#include "tests/configs/testing.h"

namespace shoestring::config {
namespace {

using google::protobuf::util::MessageDifferencer;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The fields of the released DeepSeek-V3 config.json.
json ReleasedV3() {
  return json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "aux_loss_alpha": 0.001,
    "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu",
    "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
    "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1, "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
                     "original_max_position_embeddings": 4096, "type": "yarn"},
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "seq_aux": true,
    "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
    "transformers_version": "4.33.1", "use_cache": true, "v_head_dim": 128, "vocab_size": 129280})");
}

std::string Difference(const ModelConfig& a, const ModelConfig& b) {
  std::string report;
  MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&report);
  return differencer.Compare(a, b) ? "" : report;
}

TEST(HfImportTest, ReadsTheReleasedV3AsTheRecipeSaysIt) {
  const absl::StatusOr<ModelConfig> imported = ImportHfConfig(ReleasedV3().dump());
  ASSERT_TRUE(imported.ok()) << imported.status();
  const RunConfig recipe = LoadRecipe("deepseek_v3_671b").config;
  ModelConfig expected = recipe.model();
  *expected.mutable_yarn() = recipe.train().phase(3).yarn();
  expected.set_init_std(0.02);  // the file disagrees with the report's 0.006
  EXPECT_EQ(Difference(expected, *imported), "");
}

TEST(HfImportTest, ReadsTheNewerRopeParameters) {
  json file = ReleasedV3();
  file["rope_parameters"] = file["rope_scaling"];
  file["rope_parameters"]["rope_type"] = "yarn";
  file["rope_parameters"]["rope_theta"] = 50000;
  file["rope_parameters"].erase("type");
  file.erase("rope_scaling");
  file.erase("rope_theta");
  const absl::StatusOr<ModelConfig> imported = ImportHfConfig(file.dump());
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ(imported->attention().rope_theta(), 50000);
  EXPECT_EQ(imported->yarn().factor(), 40);
}

TEST(HfImportTest, NullMeansAbsent) {
  json file = ReleasedV3();
  file["rope_scaling"] = nullptr;
  file["q_lora_rank"] = nullptr;
  const absl::StatusOr<ModelConfig> imported = ImportHfConfig(file.dump());
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_FALSE(imported->has_yarn());
  EXPECT_EQ(imported->attention().q_lora_rank(), 0);
}

TEST(HfExportTest, EveryRecipeSurvivesTheRoundTrip) {
  for (const std::string name : {"tiny_cpu", "thin_16layer", "small_1gpu", "v2_lite_16b", "deepseek_v3_671b"}) {
    const ModelConfig model = LoadRecipe(name).config.model();
    const absl::StatusOr<std::string> text = ExportHfConfig(model, {});
    ASSERT_TRUE(text.ok()) << text.status();
    const absl::StatusOr<ModelConfig> again = ImportHfConfig(*text);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(Difference(model, *again), "") << name;
  }
}

TEST(HfExportTest, YarnAndGroupedV2SurviveTheRoundTrip) {
  const ModelConfig v2 =
      LoadRecipe("v2_lite_16b", {"model.moe.groups=8", "model.moe.groups_kept=3", "model.moe.routed_scaling=16",
                                 "model.yarn={factor: 40 original_length: 4096 beta_fast: 32 beta_slow: 1 "
                                 "mscale: 0.707 mscale_all_dim: 0.707}"})
          .config.model();
  const absl::StatusOr<std::string> text = ExportHfConfig(v2, {});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr("group_limited_greedy"));
  const absl::StatusOr<ModelConfig> again = ImportHfConfig(*text);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Difference(v2, *again), "");
}

TEST(HfExportTest, SaysWhatReadersOfV3LookFor) {
  const RunConfig recipe = LoadRecipe("deepseek_v3_671b").config;
  ModelConfig model = recipe.model();
  *model.mutable_yarn() = recipe.train().phase(3).yarn();
  model.set_init_std(0.02);
  const absl::StatusOr<std::string> text = ExportHfConfig(model, {.max_position_embeddings = 163840});
  ASSERT_TRUE(text.ok()) << text.status();
  const json exported = json::parse(*text);
  const json released = ReleasedV3();
  for (const auto& [key, value] : released.items()) {
    if (!exported.contains(key) || key == "rope_scaling") continue;
    EXPECT_EQ(exported[key], value) << key;
  }
  for (const char* key : {"factor", "beta_fast", "mscale", "mscale_all_dim", "original_max_position_embeddings"}) {
    EXPECT_EQ(exported["rope_scaling"][key], released["rope_scaling"][key]) << key;
  }
}

TEST(HfExportTest, MtpCanBeLeftOut) {
  const absl::StatusOr<std::string> text = ExportHfConfig(LoadRecipe("tiny_cpu").config.model(), {.mtp = false});
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(json::parse(*text)["num_nextn_predict_layers"], 0);
}

struct Refused {
  std::string name;
  std::string patch;  // RFC 7396 merge patch of the released file
  std::string line;
};

class RefusedTest : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedTest, NamesTheField) {
  json file = ReleasedV3();
  file.merge_patch(json::parse(GetParam().patch));
  const absl::StatusOr<ModelConfig> imported = ImportHfConfig(file.dump());
  ASSERT_FALSE(imported.ok());
  EXPECT_EQ(imported.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(imported.status().message()), StartsWith(GetParam().line));
}

INSTANTIATE_TEST_SUITE_P(
    Files, RefusedTest,
    ::testing::Values(
        Refused{"model_type", R"({"model_type": "llama"})", "config.json: model_type: \"llama\" is unknown"},
        Refused{"no_model_type", R"({"model_type": null})", "config.json: model_type: \"\" is unknown"},
        Refused{"architecture", R"({"architectures": ["LlamaForCausalLM"]})", "config.json: architectures: is "},
        Refused{"rope_type", R"({"rope_scaling": {"type": "longrope"}})",
                "config.json: rope_scaling: rope type \"longrope\" is unknown; yarn, or null"},
        Refused{"rope_text", R"({"rope_scaling": "yarn"})", "config.json: rope_scaling: is not an object"},
        Refused{"rope_factor", R"({"rope_scaling": {"factor": null}})", "config.json: factor: is not set; a number"},
        Refused{"activation", R"({"hidden_act": "gelu"})", "config.json: hidden_act: is \"gelu\"; only \"silu\""},
        Refused{"bias", R"({"attention_bias": true})", "config.json: attention_bias: is true"},
        Refused{"tied", R"({"tie_word_embeddings": true})", "config.json: tie_word_embeddings: is true"},
        Refused{"frequency", R"({"moe_layer_freq": 2})", "config.json: moe_layer_freq: is 2"},
        Refused{"grouped_keys", R"({"num_key_value_heads": 8})", "config.json: num_key_value_heads: is 8; only 128"},
        Refused{"halves_rope", R"({"rope_interleave": false})", "config.json: rope_interleave: is false"},
        Refused{"scoring", R"({"scoring_func": "softmax"})", "config.json: scoring_func: is softmax"},
        Refused{"method", R"({"topk_method": "greedy"})", "config.json: topk_method: is greedy; noaux_tc"},
        Refused{"missing", R"({"hidden_size": null})", "config.json: hidden_size: is not set; a whole number"},
        Refused{"text", R"({"hidden_size": "7168"})", "config.json: hidden_size: is \"7168\"; a whole number"},
        Refused{"negative", R"({"hidden_size": -1})", "config.json: hidden_size: is -1; a whole number"},
        Refused{"huge", R"({"hidden_size": 99999999999})", "config.json: hidden_size: is 99999999999"},
        Refused{"fraction", R"({"n_group": 1.5})", "config.json: n_group: is 1.5"},
        Refused{"not_bool", R"({"norm_topk_prob": 1})", "config.json: norm_topk_prob: is 1; true or false"}),
    [](const auto& info) { return info.param.name; });

TEST(HfImportTest, RefusesWhatIsNotAnObject) {
  for (const std::string text : {"", "[]", "{", "null", "{\"a\": 1} x", "\xff"}) {
    const absl::Status status = ImportHfConfig(text, "dir/given.json").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), StartsWith("dir/given.json: is not a JSON object; ")) << text;
  }
}

TEST(HfImportTest, EveryLineNamesTheFile) {
  json file = ReleasedV3();
  file.merge_patch(json::parse(R"({"hidden_size": -1, "vocab_size": -1, "rope_scaling": {"factor": null}})"));
  const std::string message(ImportHfConfig(file.dump(), "dir/given.json").status().message());
  for (const char* field : {"hidden_size", "\ndir/given.json: vocab_size", "\ndir/given.json: factor"}) {
    EXPECT_THAT("\n" + message, HasSubstr(field));
  }
  EXPECT_THAT(message, StartsWith("dir/given.json: "));
}

TEST(HfImportTest, RefusesV2ThatWouldDropItsScale) {
  json file = json::parse(ExportHfConfig(LoadRecipe("v2_lite_16b").config.model(), {}).value());
  file["norm_topk_prob"] = true;
  EXPECT_TRUE(ImportHfConfig(file.dump()).ok());
  file["routed_scaling_factor"] = 16;
  EXPECT_THAT(std::string(ImportHfConfig(file.dump()).status().message()), HasSubstr("routed_scaling_factor"));
}

struct Unsayable {
  std::string recipe;
  std::vector<std::string> sets;
  std::string field;
};

class UnsayableTest : public ::testing::TestWithParam<Unsayable> {};

TEST_P(UnsayableTest, IsNotExported) {
  const ModelConfig model = LoadRecipe(GetParam().recipe, GetParam().sets).config.model();
  const absl::StatusOr<std::string> text = ExportHfConfig(model, {});
  EXPECT_EQ(text.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(text.status().message()), StartsWith(GetParam().field));
}

INSTANTIATE_TEST_SUITE_P(
    Models, UnsayableTest,
    ::testing::Values(Unsayable{"tiny_cpu", {"model.moe="}, "model.moe:"},
                      Unsayable{"tiny_cpu", {"model.moe.group_score=MAX"}, "model.moe.group_score: deepseek_v3"},
                      Unsayable{"tiny_cpu", {"model.moe.gate=SOFTMAX"}, "model.moe.group_score: deepseek_v2"},
                      Unsayable{"v2_lite_16b",
                                {"model.moe.renormalize=true", "model.moe.routed_scaling=2"},
                                "model.moe.routed_scaling:"},
                      Unsayable{"v2_lite_16b", {"model.mtp_depth=1"}, "model.mtp_depth:"}));

}  // namespace
}  // namespace shoestring::config
