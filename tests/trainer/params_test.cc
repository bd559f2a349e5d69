// Counts of the released models from their recipes, and what the table says of each parameter.
#include "trainer/params.h"

#include <set>

#include "base/file_system.h"
#include "configs/load.h"
#include "gmock/gmock.h"

namespace shoestring {
namespace {

config::ModelConfig ReadRecipe(const std::string& name) {
  const auto loaded = config::LoadConfig(PosixFileSystem(), {"configs/recipes/" + name + ".textproto"}, {});
  CHECK(loaded.ok());
  return loaded->config.model();
}

const Parameter& Find(const std::vector<Parameter>& table, const std::string& name) {
  for (const Parameter& p : table) {
    if (p.name == name) return p;
  }
  internal::CheckFailed(__FILE__, __LINE__, name);
}

TEST(Params, DeepSeekV3Counts) {
  const ParameterCounts counts = CountParameters(ReadRecipe("deepseek_v3_671b"));
  EXPECT_EQ(counts.main_model, 671'026'419'200);
  EXPECT_NEAR(counts.activated / 1e9, 36.63, 0.005);
  EXPECT_NEAR(counts.activated_with_embedding / 1e9, 37.552, 0.0005);
  EXPECT_NEAR(counts.mtp_unique / 1e9, 11.61, 0.005);
}

TEST(Params, V2LiteCounts) {
  const ParameterCounts counts = CountParameters(ReadRecipe("v2_lite_16b"));
  EXPECT_NEAR(counts.main_model / 1e9, 15.706, 0.0005);
  EXPECT_NEAR(counts.activated / 1e9, 2.451, 0.0005);
  EXPECT_EQ(counts.mtp_unique, 0);
}

TEST(Params, OneLayerIsAsTheReportCounts) {
  int64_t dense = 0;
  int64_t moe = 0;
  for (const Parameter& p : BuildParameterTable(ReadRecipe("deepseek_v3_671b"))) {
    if (p.layer == 0) dense += p.elements();
    if (p.layer == 3) moe += p.elements();
  }
  EXPECT_NEAR(dense / 1e6, 583.483, 0.0005);
  EXPECT_NEAR(moe / 1e6, 11507.3, 0.05);
}

TEST(Params, FusedMatricesSayWhichRowsAreWhichReleasedTensor) {
  const std::vector<Parameter> table = BuildParameterTable(ReadRecipe("deepseek_v3_671b"));
  const Parameter& qkv = Find(table, "model.layers.4.self_attn.qkv_a_proj.weight");
  EXPECT_EQ(qkv.rows, 2112);
  ASSERT_EQ(qkv.parts.size(), 2u);
  EXPECT_EQ(qkv.parts[0].name, "model.layers.4.self_attn.q_a_proj.weight");
  EXPECT_EQ(qkv.parts[1].name, "model.layers.4.self_attn.kv_a_proj_with_mqa.weight");
  EXPECT_EQ(qkv.parts[1].first_row, 1536);
  const Parameter& experts = Find(table, "model.layers.4.mlp.experts.gate_up_proj");
  EXPECT_EQ(experts.stack, 256);
  EXPECT_EQ(experts.domain, MeshDomain::kExpert);
  EXPECT_EQ(experts.parts[1].name, "model.layers.4.mlp.experts.{e}.up_proj.weight");
  EXPECT_EQ(experts.parts[1].first_row, 2048);
  for (const Parameter& p : table) {
    int64_t rows = 0;
    for (const Part& part : p.parts) {
      EXPECT_EQ(part.first_row, rows) << p.name;
      rows += part.rows;
    }
    if (!p.parts.empty()) {
      EXPECT_EQ(rows, p.rows) << p.name;
    }
  }
}

TEST(Params, WithoutQueryLatentTheFirstRowsAreTheQueries) {
  const std::vector<Parameter> table = BuildParameterTable(ReadRecipe("v2_lite_16b"));
  const Parameter& qkv = Find(table, "model.layers.0.self_attn.qkv_a_proj.weight");
  EXPECT_EQ(qkv.rows, 16 * 192 + 576);
  EXPECT_EQ(qkv.parts[0].name, "model.layers.0.self_attn.q_proj.weight");
  for (const Parameter& p : table) EXPECT_EQ(p.name.find("q_b_proj"), std::string::npos);
}

TEST(Params, RolesFollowTheRules) {
  const config::ModelConfig model = ReadRecipe("deepseek_v3_671b");
  const std::vector<Parameter> table = BuildParameterTable(model);
  std::set<std::string> names;
  int64_t biases = 0;
  for (const Parameter& p : table) {
    EXPECT_TRUE(names.insert(p.name).second) << p.name;
    EXPECT_EQ(p.decay, p.is_matrix()) << p.name;
    EXPECT_EQ(p.compute_copy, p.is_matrix()) << p.name;
    EXPECT_EQ(p.is_mtp, p.layer >= model.layers()) << p.name;
    EXPECT_EQ(p.domain == MeshDomain::kExpert, p.stack > 1) << p.name;
    if (!p.trained) {
      ++biases;
      EXPECT_EQ(p.initializer, Initializer::kZeros) << p.name;
    }
  }
  EXPECT_EQ(biases, 59);
  EXPECT_EQ(table.front().name, "model.embed_tokens.weight");
  EXPECT_EQ(table.back().name, "lm_head.weight");
  EXPECT_EQ(table.front().uses, 2);
  EXPECT_EQ(table.back().uses, 2);
  EXPECT_EQ(Find(table, "model.layers.61.eh_proj.weight").cols, 2 * 7168);
}

}  // namespace
}  // namespace shoestring
