// Compares our models with what Hugging Face's implementation computed, without Python: logits, every gradient, twenty
// AdamW steps. tests/parity/make_golden.py wrote the files (docs/parity.md).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/base/temp_dir.h"
#include "tests/parity/session.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/export/import_hf.h"

namespace shoestring {
namespace {

FileSystem& Fs() { return PosixFileSystem(); }

// FP32 numbers of a tensor; a test failure, and nothing, when it is not there.
std::vector<float> ReadTensor(const SafetensorsFile& file, const std::string& name) {
  const std::vector<SafetensorsEntry>& entries = file.header().entries;
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.name == name; });
  if (entry == entries.end() || entry->dtype != "F32") {
    ADD_FAILURE() << file.path() << " has no F32 tensor " << name;
    return {};
  }
  std::vector<float> values(static_cast<size_t>(entry->size_bytes) / sizeof(float));
  EXPECT_TRUE(file.ReadAt(entry->offset, entry->size_bytes, reinterpret_cast<char*>(values.data())).ok());
  return values;
}

double RelativeDifference(const std::vector<float>& ours, const std::vector<float>& theirs) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < theirs.size(); ++i) {
    difference += std::pow(static_cast<double>(ours[i]) - static_cast<double>(theirs[i]), 2);
    norm += std::pow(static_cast<double>(theirs[i]), 2);
  }
  return std::sqrt(difference / norm);
}

class HfGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    directory_ = absl::StrCat("tests/parity/golden/", GetParam());
    auto loaded = config::LoadConfig(Fs(), {"tests/parity/golden/train.textproto"}, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const auto model = ReadHfModel(Fs(), directory_);
    ASSERT_TRUE(model.ok()) << model.status();
    *loaded->config.mutable_model() = *model;
    const absl::Status valid = config::Validate(loaded->config);
    ASSERT_TRUE(valid.ok()) << valid;
    const auto text = ReadFile(Fs(), JoinPath(directory_, "golden.json"));
    ASSERT_TRUE(text.ok()) << text.status();
    golden_ = nlohmann::json::parse(*text);
    auto session = ParitySession::Create(loaded->config, golden_["samples"].get<std::vector<int32_t>>(), 2);
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = std::move(*session);
    const absl::Status imported = session_->ImportWeights(directory_);
    ASSERT_TRUE(imported.ok()) << imported;
  }
  SafetensorsFile OpenGolden() const {
    return *SafetensorsFile::Open(Fs(), JoinPath(directory_, "golden.safetensors"));
  }

  std::string directory_;
  nlohmann::json golden_;
  std::unique_ptr<ParitySession> session_;
};

TEST_P(HfGoldenTest, LogitsAgree) {
  const std::vector<float> expected = ReadTensor(OpenGolden(), "logits");
  const auto logits = session_->Logits();
  ASSERT_TRUE(logits.ok()) << logits.status();
  ASSERT_EQ(logits->size(), expected.size());
  double largest = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR((*logits)[i], expected[i], 1e-4) << "logit " << i;
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  EXPECT_GT(largest, 0.3);  // so that the bound means something
}

TEST_P(HfGoldenTest, EveryGradientAgrees) {
  const TempDir dir;
  const absl::Status exported = session_->ExportGradients(dir.File("gradients"));
  ASSERT_TRUE(exported.ok()) << exported;
  const auto ours = SafetensorsFile::Open(Fs(), dir.File("gradients/model.safetensors"));
  ASSERT_TRUE(ours.ok()) << ours.status();
  const SafetensorsFile golden = OpenGolden();
  int compared = 0;
  for (const SafetensorsEntry& entry : ours->header().entries) {
    if (absl::EndsWith(entry.name, "e_score_correction_bias")) continue;
    const std::vector<float> gradient = ReadTensor(*ours, entry.name), expected = ReadTensor(golden, entry.name);
    ASSERT_EQ(gradient.size(), expected.size()) << entry.name;
    EXPECT_LT(RelativeDifference(gradient, expected), 1e-4) << entry.name;
    ++compared;
  }
  EXPECT_EQ(compared + 1, golden.header().entries.size());  // and the logits
}

TEST_P(HfGoldenTest, TwentyStepsHaveTheSameLosses) {
  const auto losses = golden_["losses"].get<std::vector<double>>();
  ASSERT_EQ(losses.size(), 20);
  for (const double loss : losses) {
    const auto result = session_->Step();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_NEAR((*result)->loss, loss, 1e-3 * loss) << "step " << (*result)->position.step;
  }
  EXPECT_LT(losses.back(), losses.front() - 0.1);  // there was something to compare
}

INSTANTIATE_TEST_SUITE_P(Models, HfGoldenTest, testing::Values("latent_yarn", "plain"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace shoestring
