// Presets: the report's is the file that trains it, each differs in what it says, and all are legal.
#include "trainer/numerics/presets.h"

#include <set>
#include <string>

#include "base/file_system.h"
#include "configs/load.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/numerics/probe.h"

namespace shoestring {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

TEST(PresetsTest, TheReportsRecipeIsThatOfTheFile) {
  const absl::StatusOr<config::LoadedConfig> file =
      config::LoadConfig(PosixFileSystem(), {"configs/presets/fp8_v3.textproto"}, {});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(MessageDifferencer::Equals(ReportPrecision(), file->config.precision()));
}

TEST(PresetsTest, AllAreLegalAndDifferent) {
  std::set<std::string> names, texts;
  const config::RunConfig tiny = TinyConfig("FP32", "layout { data_ranks: 4 expert_ranks: 2 } train { lanes: 4 }");
  for (const PrecisionPreset& preset : AllPrecisionPresets()) {
    EXPECT_TRUE(names.insert(preset.name).second) << preset.name;
    EXPECT_TRUE(texts.insert(preset.precision.ShortDebugString()).second) << preset.name;
    EXPECT_EQ(ConfigInPrecision(tiny, preset).status(), absl::OkStatus());
    const absl::StatusOr<PrecisionPreset> parsed = ParsePrecisionPreset(preset.name);
    ASSERT_TRUE(parsed.ok());
    EXPECT_TRUE(MessageDifferencer::Equals(parsed->precision, preset.precision));
  }
}

TEST(PresetsTest, OwnOnesChangeTheReports) {
  const absl::StatusOr<PrecisionPreset> mine =
      ParsePrecisionPreset("mine:fp8.gradient_format=E5M2,fp8.activation_tile.columns=256");
  ASSERT_TRUE(mine.ok()) << mine.status();
  EXPECT_EQ(mine->name, "mine");
  config::PrecisionConfig wanted = ReportPrecision();
  wanted.mutable_fp8()->set_gradient_format(config::Fp8Recipe::E5M2);
  wanted.mutable_fp8()->mutable_activation_tile()->set_columns(256);
  EXPECT_TRUE(MessageDifferencer::Equals(mine->precision, wanted));
}

TEST(PresetsTest, RefusalsNameThePreset) {
  EXPECT_THAT(ParsePrecisionPreset("fp9").status().message(), HasSubstr("--preset fp9: is no preset"));
  EXPECT_THAT(ParsePrecisionPreset("fp8-e5m3").status().message(), HasSubstr("did you mean 'fp8-e5m2'?"));
  EXPECT_THAT(ParsePrecisionPreset("mine:fp8.colour=red").status().message(), HasSubstr("--preset mine: "));
  const absl::StatusOr<PrecisionPreset> illegal = ParsePrecisionPreset("mine:fp8.promotion_interval=96");
  ASSERT_TRUE(illegal.ok());
  const absl::Status status = ConfigInPrecision(TinyConfig(), *illegal).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("--preset mine: "));
  EXPECT_THAT(status.message(), HasSubstr("activation_tile.columns"));
}

}  // namespace
}  // namespace shoestring
