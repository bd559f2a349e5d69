// A run says which level of instructions computed it, and a resume under another level says that its bits will differ.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launch/training.h"
#include "launch/verbs.h"
#include "tests/base/temp_dir.h"
#include "trainer/checkpoint/check.h"
#include "trainer/checkpoint/load.h"
#include "trainer/observe/summary.h"

namespace shoestring {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// A level that this machine has and does not choose, unless it has one alone; AVX2 where it can, which is not as slow.
Isa OtherIsa() { return DefaultIsa() > Isa::kAvx2 ? Isa::kAvx2 : Isa::kPortable; }

// The command line's tiny run in a folder of its own, which is the working directory: the config's paths are relative.
class InstructionSetTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(std::filesystem::copy_file("tests/launch/tiny.textproto", dir_.File("tiny.textproto")));
    std::filesystem::current_path(dir_.path());
    std::ofstream corpus("corpus.txt");
    for (int i = 0; i < 4000; ++i) corpus << (i % 20 == 0 ? "\n\n" : "word ") << i * i % 97 << " and " << i % 13;
    corpus.close();
    std::filesystem::create_directory("data");
    ASSERT_EQ(RunCommandLine({"data", "tokenizer-train", "--input", "corpus.txt", "--vocab-size", "300", "--output",
                              "data/tokenizer.json"}),
              0);
    ASSERT_EQ(RunCommandLine({"data", "prepare", "--config", "tiny.textproto", "--input", "corpus.txt", "--text-split",
                              "blank-lines", "--validation-fraction", "0.1"}),
              0);
    const auto loaded = config::LoadConfig(PosixFileSystem(), {"tiny.textproto"}, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    config_ = loaded->config;
  }
  void TearDown() override { std::filesystem::current_path(source_); }

  void Train(const std::string& run, Start start, Isa isa, int64_t max_steps) {
    TrainRequest request;
    request.config = config_;
    request.run_directory = run;
    request.start = start;
    request.max_steps = max_steps;
    request.isa = isa;
    ASSERT_EQ(RunTraining(request), 0);
  }

  OpenedCheckpoint Newest(const std::string& run) { return *FindNewest(PosixFileSystem(), run + "/checkpoints"); }
  std::string State(const std::string& run) { return Newest(run).manifest.state_sha256(); }
  std::string Log(const std::string& run, const std::string& attempt) {
    return *ReadFile(PosixFileSystem(), absl::StrCat(run, "/", attempt, "/logs/rank_00000.log"));
  }
  // Lines of a start's log that speak of a change.
  std::vector<std::string> Warnings(const std::string& run, const std::string& attempt) {
    std::vector<std::string> lines;
    for (const absl::string_view line : absl::StrSplit(Log(run, attempt), '\n')) {
      if (absl::StrContains(line, "instruction set")) lines.emplace_back(line);
    }
    return lines;
  }

  const std::string source_ = std::filesystem::current_path();
  const TempDir dir_;
  config::RunConfig config_;
};

TEST_F(InstructionSetTest, IsRecordedByLogSummaryAndCheckpoint) {
  for (const Isa isa : {OtherIsa(), DefaultIsa()}) {
    const std::string name(IsaName(isa)), run = absl::StrCat("run_", name);
    if (std::filesystem::exists(run)) continue;  // this machine has one level alone
    Train(run, Start::kFresh, isa, 2);
    EXPECT_THAT(Log(run, "attempt_000"), HasSubstr(absl::StrCat("device     CPU ", name, ", ")));
    EXPECT_EQ(ReadSummary(PosixFileSystem(), run)->instruction_set, name);
    EXPECT_EQ(Newest(run).header().instruction_set(), name);
    const CheckReport report = CheckCheckpoint(PosixFileSystem(), Newest(run).path);
    EXPECT_TRUE(report.ok());
    EXPECT_THAT(report.ToString(), HasSubstr(absl::StrCat("instruction set ", name, "\n")));
  }
}

TEST_F(InstructionSetTest, OneLevelGivesTheSameBitsAndSaysNothing) {
  Train("whole", Start::kFresh, OtherIsa(), 8);
  Train("parts", Start::kFresh, OtherIsa(), 5);
  Train("parts", Start::kContinue, OtherIsa(), 8);
  EXPECT_EQ(State("parts"), State("whole"));
  EXPECT_THAT(Warnings("parts", "attempt_001"), IsEmpty());
}

TEST_F(InstructionSetTest, AnotherLevelIsAllowedAndSaysThatBitsDiffer) {
  if (DefaultIsa() == OtherIsa()) GTEST_SKIP() << "needs a processor with two levels, has " << IsaName(DefaultIsa());
  Train("whole", Start::kFresh, OtherIsa(), 8);
  Train("parts", Start::kFresh, OtherIsa(), 5);
  Train("parts", Start::kContinue, DefaultIsa(), 8);
  EXPECT_NE(State("parts"), State("whole"));
  EXPECT_EQ(Newest("parts").header().instruction_set(), IsaName(DefaultIsa()));
  EXPECT_EQ(Newest("parts").header().step(), 8);
  const std::vector<std::string> warnings = Warnings("parts", "attempt_001");
  ASSERT_EQ(warnings.size(), 1);
  EXPECT_THAT(warnings[0], HasSubstr(absl::StrCat("instruction set: ", IsaName(OtherIsa()), " -> ",
                                                  IsaName(DefaultIsa()), "; from step 6 on the bits differ")));
  EXPECT_THAT(warnings, Each(Not(HasSubstr("harmless"))));
}

}  // namespace
}  // namespace shoestring
