// Tests of the Hugging Face config.json: round trips, the released DeepSeek-V3 file, and what is refused.
#include "configs/hf_config.h"

#include <cmath>
#include <tuple>

#include "configs/print.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "nlohmann/json.hpp"
#include "tests/base/temp_dir.h"
#include "tests/configs/testing.h"

namespace shoestring::config {
namespace {

using google::protobuf::util::MessageDifferencer;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::EndsWith;
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

// As transformers' two configuration classes have them; null is not absence where it says something.
TEST(HfImportTest, AbsentFieldsAreTheirClassesDefaults) {
  json v3 = ReleasedV3();
  json v2 = json::parse(ExportHfConfig(LoadRecipe("v2_lite_16b").config.model(), {}).value());
  for (const char* field : {"q_lora_rank", "first_k_dense_replace", "n_shared_experts", "n_group", "topk_group",
                            "bos_token_id", "eos_token_id"}) {
    v3.erase(field);
    v2.erase(field);
  }
  const absl::StatusOr<ModelConfig> third = ImportHfConfig(v3.dump()), second = ImportHfConfig(v2.dump());
  ASSERT_TRUE(third.ok()) << third.status();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_THAT((std::vector<int>{third->attention().q_lora_rank(), third->dense_layers(), third->moe().shared_experts(),
                                third->moe().groups(), third->moe().groups_kept(), third->bos_id(), third->eos_id()}),
              ElementsAre(1536, 3, 1, 8, 4, 0, 1));
  EXPECT_THAT(
      (std::vector<int>{second->attention().q_lora_rank(), second->dense_layers(), second->moe().shared_experts(),
                        second->moe().groups(), second->moe().groups_kept(), second->bos_id(), second->eos_id()}),
      ElementsAre(1536, 0, 2, 1, 1, 1, 2));
  v3["n_shared_experts"] = nullptr;
  EXPECT_EQ(ImportHfConfig(v3.dump())->moe().shared_experts(), 0);
  v3["n_group"] = nullptr;
  EXPECT_THAT(std::string(ImportHfConfig(v3.dump()).status().message()), HasSubstr("n_group: is null; a whole number"));
  v2["topk_method"] = "group_limited_greedy";
  EXPECT_THAT(std::string(ImportHfConfig(v2.dump()).status().message()), HasSubstr("n_group: is not set"));
}

TEST(HfImportTest, TheOlderRopeFieldGoesFirst) {
  json file = ReleasedV3();
  file["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5000}};
  EXPECT_EQ(ImportHfConfig(file.dump())->yarn().factor(), 40);
  file["rope_scaling"] = json::object();
  EXPECT_EQ(ImportHfConfig(file.dump())->attention().rope_theta(), 5000);
  EXPECT_FALSE(ImportHfConfig(file.dump())->has_yarn());
}

// The released code divides the temperatures of mscale and mscale_all_dim; transformers does where both are there and
// not 0, and takes 0.1 ln(factor) + 1 where not, unless attention_factor says another number.
TEST(HfImportTest, TemperaturesMeanTheSameToEveryReaderOrAreRefused) {
  struct Case {
    const char* said;
    double mscale, all_dim;
    const char* refusal;  // empty: none
  };
  for (const Case& c : {
           Case{"{}", 1, 0, ""},
           Case{R"({"mscale": 1.0})", 1, 0, ""},
           Case{R"({"mscale": 0.5, "mscale_all_dim": 0.25})", 0.5, 0.25, ""},
           Case{R"({"mscale": 0.5, "mscale_all_dim": 0.25, "attention_factor": 1.0844})", 0, 0,
                "attention_factor: is 1.0844, but mscale and mscale_all_dim mean 1.08443"},
           Case{R"({"mscale": 0, "mscale_all_dim": 0})", 0, 0,
                "attention_factor: is not set, which transformers takes for 1.36888795, but mscale and mscale_all_dim "
                "mean 1; say 1"},
           Case{R"({"mscale": 0, "mscale_all_dim": 0, "attention_factor": 1})", 0, 0, ""},
           Case{R"({"mscale": 0.707})", 0, 0, "attention_factor: is not set"},
           Case{R"({"mscale_all_dim": 1.0})", 0, 0, "attention_factor: is not set"},
           Case{R"({"mscale_all_dim": 1.0, "attention_factor": 1.0})", 1, 1, ""},
           Case{R"({"truncate": false})", 0, 0, "truncate: is false; only true can be trained here"},
       }) {
    json file = ReleasedV3();
    file["rope_scaling"] = {{"type", "yarn"}, {"factor", 40}, {"original_max_position_embeddings", 4096}};
    file["rope_scaling"].update(json::parse(c.said));
    const absl::StatusOr<ModelConfig> imported = ImportHfConfig(file.dump());
    ASSERT_EQ(imported.ok(), *c.refusal == '\0') << c.said << imported.status();
    if (!imported.ok()) {
      EXPECT_THAT(std::string(imported.status().message()), StartsWith(absl::StrCat("config.json: ", c.refusal)));
      continue;
    }
    EXPECT_EQ(imported->yarn().mscale(), c.mscale) << c.said;
    EXPECT_EQ(imported->yarn().mscale_all_dim(), c.all_dim) << c.said;
  }
}

TEST(HfExportTest, TemperaturesThatTransformersWouldTakeOtherwiseAreSaid) {
  for (const auto& [mscale, all_dim, said] : {std::tuple{1.0, 1.0, false},
                                              {0.707, 0.5, false},
                                              {1.0, 0.0, false},
                                              {0.5, 0.0, true},
                                              {0.0, 0.0, true},
                                              {0.0, 1.0, true}}) {
    ModelConfig model = LoadRecipe("tiny_cpu").config.model();
    YarnConfig& yarn = *model.mutable_yarn();
    yarn = LoadRecipe("deepseek_v3_671b").config.train().phase(3).yarn();
    yarn.set_mscale(mscale);
    yarn.set_mscale_all_dim(all_dim);
    const absl::StatusOr<std::string> text = ExportHfConfig(model, {});
    ASSERT_TRUE(text.ok()) << text.status();
    const json rope = json::parse(*text)["rope_scaling"];
    ASSERT_EQ(rope.contains("attention_factor"), said) << rope;
    if (said) {
      EXPECT_NEAR(rope["attention_factor"].get<double>(),
                  (0.1 * mscale * std::log(40) + 1) / (0.1 * all_dim * std::log(40) + 1), 1e-12);
    }
    const absl::StatusOr<ModelConfig> again = ImportHfConfig(*text);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(Difference(model, *again), "");
  }
}

TEST(HfExportTest, TheContextIsWhatYarnReaches) {
  ModelConfig model = LoadRecipe("tiny_cpu").config.model();
  EXPECT_EQ(json::parse(*ExportHfConfig(model, {}))["max_position_embeddings"], 4096);
  *model.mutable_yarn() = LoadRecipe("deepseek_v3_671b").config.train().phase(3).yarn();
  EXPECT_EQ(json::parse(*ExportHfConfig(model, {}))["max_position_embeddings"], 163840);
  EXPECT_EQ(json::parse(*ExportHfConfig(model, {.max_position_embeddings = 77}))["max_position_embeddings"], 77);
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
    EXPECT_THAT(std::string(status.message()), StartsWith("dir/given.json: ")) << text;
    EXPECT_THAT(std::string(status.message()), EndsWith("; name a model's config.json, or download it again")) << text;
  }
}

TEST(HfImportTest, RefusesAFieldThatIsSaidTwice) {
  std::string text = ReleasedV3().dump();
  text.insert(1, "\"hidden_size\": 7168, ");
  const absl::Status status = ImportHfConfig(text, "dir/given.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), StartsWith("dir/given.json: the key \"hidden_size\" appears twice; "));
}

TEST(HfImportTest, LoadsAFileOfSensibleSize) {
  const TempDir dir;
  const std::string path = dir.File("config.json");
  EXPECT_EQ(LoadHfConfig(PosixFileSystem(), path).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFile(PosixFileSystem(), path, ReleasedV3().dump()).ok());
  EXPECT_EQ(LoadHfConfig(PosixFileSystem(), path)->hidden(), 7168);
  ASSERT_TRUE(PosixFileSystem().Truncate(path, int64_t{1} << 41).ok());
  const absl::Status status = LoadHfConfig(PosixFileSystem(), path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), StartsWith(path + ": has 2199023255552 bytes"));
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
                                {"model.moe.renormalize=true"},
                                "model.moe.renormalize: transformers' deepseek_v2 never divides"},
                      Unsayable{"tiny_cpu",
                                {"model.moe.routed_experts=4", "model.moe.groups=4", "model.moe.groups_kept=4",
                                 "model.moe.active_experts=2"},
                                "model.moe.groups: deepseek_v3 ranks a group by its two best experts"},
                      Unsayable{"v2_lite_16b", {"model.mtp_depth=1"}, "model.mtp_depth:"}));

}  // namespace
}  // namespace shoestring::config
