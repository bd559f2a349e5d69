// What is shown of a probe: summaries, order of the worst, JSON without infinities, a page without script.
#include "trainer/numerics/probe_report.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A tensor with that relative error; 0: exact.
MeasuredTensor Tensor(const std::string& name, TensorGroup group, int layer, float error) {
  MeasuredTensor tensor{{name, group, layer}, {}};
  tensor.signal.Add(std::vector<float>{1}, std::vector<float>{1 + error});
  return tensor;
}

void AddOne(QuantiserLoss& loss, DType format, float x, float scale, float y) {
  loss.Add(format, {&x, 1}, {&scale, 1}, {&y, 1});
}

ProbeResult Result() {
  ProbeResult result;
  result.sequences = 2;
  result.sequence_length = 8;
  result.main_layers = 1;
  result.reference.main = 4.25;
  for (const float factor : {1.0f, 10.0f}) {
    PresetResult& preset = result.presets.emplace_back();
    preset.preset = {factor == 1 ? "good" : "bad", "a <summary>", ReportPrecision()};
    preset.losses.main = 4.25 + 0.001 * factor;
    preset.routed_tokens = 16;
    preset.differing_tokens = factor == 1 ? 0 : 4;
    preset.tensors = {Tensor("embed_tokens.out", TensorGroup::kActivation, -1, 0),
                      Tensor("layers.0.a.out", TensorGroup::kActivation, 0, 0.01f * factor),
                      Tensor("layers.0.b.out", TensorGroup::kActivation, 0, 0.001f * factor),
                      Tensor("layers.0.a.dx", TensorGroup::kGradient, 0, 0.0625f),
                      Tensor("layers.0.a.dw", TensorGroup::kWeightGradient, 0, 0.0001f * factor)};
    MeasuredQuantiser& q = preset.quantisers.emplace_back();
    q.name = "layers.0.a.x";
    q.tile = {1, 128};
    AddOne(q.loss, DType::kE4M3, 448, 1, 448);
    AddOne(q.loss, DType::kE4M3, 1e-4f * factor, 1, 0);
  }
  return result;
}

const ProbeSubject kSubject = {"runs/<first>", 7, "from sample 3"};

TEST(ProbeReportTest, Summaries) {
  const ProbeResult result = Result();
  const GroupSummary activations = Summarise(result.presets[0], TensorGroup::kActivation);
  EXPECT_NEAR(activations.worst_db, 40, 1e-3);
  EXPECT_NEAR(activations.median_db, 60, 1e-2);
  EXPECT_EQ(activations.tensor, "layers.0.a.out");
  EXPECT_NEAR(Summarise(result.presets[1], TensorGroup::kWeightGradient).worst_db, 60, 1e-2);
  PresetResult even = result.presets[0];
  even.tensors.push_back(Tensor("exact", TensorGroup::kActivation, 0, 0));
  EXPECT_NEAR(Summarise(even, TensorGroup::kActivation).median_db, 60, 1e-2);  // the lower of 60 and infinity
  PresetResult broken = result.presets[0];
  broken.tensors.push_back(Tensor("nan", TensorGroup::kActivation, 0, std::nanf("")));
  EXPECT_TRUE(std::isnan(Summarise(broken, TensorGroup::kActivation).worst_db));
  EXPECT_EQ(Summarise(broken, TensorGroup::kActivation).tensor, "nan");
}

TEST(ProbeReportTest, TheWorstComeFirstAndTheExactNotAtAll) {
  EXPECT_THAT(WorstTensors(Result(), 10), ElementsAre(1, 3, 2, 4));
  EXPECT_THAT(WorstTensors(Result(), 2), ElementsAre(1, 3));
}

TEST(ProbeReportTest, TextOfSnr) {
  EXPECT_EQ(SnrText(31.449), "31.4");
  EXPECT_EQ(SnrText(kInfinity), "exact");
  EXPECT_EQ(SnrText(-kInfinity), "lost");
  EXPECT_EQ(SnrText(std::nan("")), "NaN");
}

TEST(ProbeReportTest, TableSaysItAll) {
  const std::string table = ProbeTable(Result(), kSubject);
  EXPECT_THAT(table, HasSubstr("runs/<first>, step 7; 2 sequences of 8 tokens, from sample 3\n"));
  EXPECT_THAT(table, testing::ContainsRegex("good +\\+1.0e-03 +60.0 +40.0 +24.1 +24.1 +80.0 +80.0 +0.00%\n"));
  EXPECT_THAT(table, testing::ContainsRegex("bad +\\+1.0e-02 +40.0 +20.0 +24.1 +24.1 +60.0 +60.0 +25.00%\n"));
  EXPECT_THAT(table, testing::ContainsRegex("layers.0.a.out +40.0 +20.0\n"));
  EXPECT_THAT(table, testing::ContainsRegex("layers.0.a.x +50.000% +50.000%\n"));
}

TEST(ProbeReportTest, OperandsThatAreNotFiniteAreNaN) {
  ProbeResult result = Result();
  for (int i = 0; i < 40; ++i) {
    MeasuredQuantiser& q = result.presets[0].quantisers.emplace_back();
    q.name = "q";
    AddOne(q.loss, DType::kE4M3, i % 2 == 0 ? std::nanf("") : 1, 1, 0.5f + 0.01f * static_cast<float>(i));
  }
  // Of an even number of operands the median is the lower: 26 dB and the exact one.
  MeasuredQuantiser& exact = result.presets[1].quantisers.emplace_back();
  AddOne(exact.loss, DType::kE4M3, 1, 1, 1);
  const std::string table = ProbeTable(result, kSubject);
  EXPECT_THAT(table, testing::ContainsRegex("good +41 +NaN +NaN "));
  EXPECT_THAT(table, testing::ContainsRegex("bad +2 +113.0 +113.0 "));
}

TEST(ProbeReportTest, NamesThatAreNotUtf8AreReplaced) {
  const nlohmann::json json = nlohmann::json::parse(ProbeJson(Result(), {"caf\xe9", 7, "words\xff.txt"}));
  EXPECT_EQ(json["checkpoint"], "caf\xef\xbf\xbd");
}

TEST(ProbeReportTest, JsonIsWhole) {
  const nlohmann::json json = nlohmann::json::parse(ProbeJson(Result(), kSubject));
  EXPECT_EQ(json["routing"], "reference");
  EXPECT_EQ(json["presets"][1]["name"], "bad");
  EXPECT_EQ(json["presets"][1]["differing_tokens"], 4);
  const nlohmann::json& tensors = json["presets"][0]["tensors"];
  ASSERT_EQ(tensors.size(), 5);
  EXPECT_TRUE(tensors[0]["snr_db"].is_null());
  EXPECT_EQ(tensors[0]["exact"], true);
  EXPECT_NEAR(tensors[1]["snr_db"].get<double>(), 40, 1e-3);
  EXPECT_EQ(tensors[1]["exact"], false);
  EXPECT_EQ(json["presets"][0]["quantised"][0]["saturated"], 0.5);
  EXPECT_EQ(json["presets"][0]["quantised"][0]["underflow"], 0.5);
}

TEST(ProbeReportTest, PageHasCurvesAndNoScript) {
  const std::string page = ProbePage(Result(), kSubject);
  EXPECT_THAT(page, HasSubstr("runs/&lt;first&gt;"));
  EXPECT_THAT(page, HasSubstr("a &lt;summary&gt;"));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  for (const char* title : {"Forward: activations<", "Backward: gradients of activations<",
                            "Backward: weight gradients<", "Worst underflow of an operand in a layer<"}) {
    EXPECT_THAT(page, HasSubstr(title));
  }
  EXPECT_THAT(page, HasSubstr("Better (above 0) or worse than good<"));
  ProbeResult large = Result();
  for (PresetResult& preset : large.presets) {
    for (int i = 0; i < 200; ++i) preset.tensors.push_back(Tensor("t", TensorGroup::kActivation, i / 10, 0.5f));
  }
  EXPECT_THAT(ProbePage(large, kSubject), HasSubstr("Forward: activations, worst of each layer<"));
}

}  // namespace
}  // namespace shoestring
