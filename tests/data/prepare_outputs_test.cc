// Preparation and what stands where its outputs go: who may write there, what is refused, and what outlives a failure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "base/fault_file_system.h"
#include "tests/data/prepare_fixture.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;
using PrepareOutputsTest = PrepareTest;

// Whatever writes to the same place while a preparation is under way.
TEST_F(PrepareOutputsTest, ASecondPreparationOfAPrefixIsRefused) {
  int tried = 0;
  const auto first = Prepare(PosixFileSystem(), encoder_, options_, [&](const PrepareProgress&) {
    PrepareOptions second = options_;
    second.overwrite = true;
    second.seed = 6;
    (tried++ % 2 == 0 ? second.train_prefix : second.validation_prefix) = home_ / "out/elsewhere";
    const absl::Status status = Prepare(PosixFileSystem(), encoder_, second, nullptr).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(status.message(), HasSubstr("in use by process"));
  });
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_GT(tried, 10);
  const auto bytes = Outputs();
  EXPECT_EQ(bytes.size(), 8);  // and no lock
  Clear();
  MustRun();
  EXPECT_EQ(Outputs(), bytes);
}

TEST_F(PrepareOutputsTest, WhatWasHeldOutIsNotTrainedOnUnasked) {
  MustRun();
  const auto before = Outputs();
  options_.overwrite = true;
  options_.validation_fraction = 0;
  options_.validation_text_path.clear();
  options_.inputs = {home_.path() + "/./b.jsonl"};
  const auto refused = Run();
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.status().message(), HasSubstr("was held out of"));
  EXPECT_EQ(Outputs(), before);
  MustWrite(home_ / "other.jsonl", "{\"text\": \"another text\"}\n");
  options_.inputs = {home_ / "other.jsonl"};
  EXPECT_TRUE(Run().ok());
  options_.inputs = {home_ / "a.jsonl"};
  ASSERT_TRUE(PosixFileSystem().Remove(MetaPath(options_.validation_prefix)).ok());
  EXPECT_TRUE(Run().ok());
}

TEST_F(PrepareOutputsTest, WhatWasHeldOutIsKnownFromAnotherDirectory) {
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::current_path(home_.path());
  options_.inputs = {"a.jsonl", "./b.jsonl"};
  const PrepareSummary summary = MustRun();
  EXPECT_EQ(summary.train.sources[1].path, CanonicalPath(home_ / "b.jsonl"));
  std::filesystem::current_path(here);
  options_.overwrite = true;
  options_.validation_fraction = 0;
  options_.validation_text_path.clear();
  options_.inputs = {home_ / "b.jsonl"};
  const std::string text = MustRead(home_ / "b.jsonl");
  MustWrite(home_ / "b.jsonl", text + "{\"text\": \"one more\"}\n");
  EXPECT_THAT(Run().status().message(), HasSubstr("was held out of"));
  ASSERT_TRUE(PosixFileSystem().CreateDirectories(home_ / "copy").ok());
  MustWrite(home_ / "copy/b.jsonl", text);
  options_.inputs = {home_ / "copy/b.jsonl"};
  EXPECT_THAT(Run().status().message(), HasSubstr("was held out of"));
}

TEST_F(PrepareOutputsTest, AFailureWithoutAPartLeavesNothing) {
  MustWrite(home_ / "a.jsonl", "{}\n");
  options_.train_text_path.clear();
  options_.validation_text_path.clear();
  EXPECT_FALSE(Run().ok());
  EXPECT_TRUE(Outputs().empty());
}

TEST_F(PrepareOutputsTest, AnInputIsNoOutputHoweverItIsSpelled) {
  options_.train_text_path = home_.path() + "/out/../a.jsonl";
  EXPECT_THAT(Run().status().message(), HasSubstr("would be overwritten"));
  options_.train_text_path = home_.path() + "/./out/valid.raw";
  EXPECT_THAT(Run().status().message(), HasSubstr("two outputs have the name"));
  options_.train_text_path.clear();
  options_.train_prefix += "/";
  EXPECT_THAT(Run().status().message(), HasSubstr("is a folder"));
}

TEST_F(PrepareOutputsTest, NamesAreThoseOfTheFilesThatAreWritten) {
  for (const char* suffix : {".bin", ".idx", ".meta.json", ".lock", ".parts", ".bin.tmp"}) {
    options_.train_text_path = home_.path() + "/./out/train" + suffix;
    EXPECT_THAT(Run().status().message(), HasSubstr("two outputs have the name"));
    options_.train_text_path = options_.validation_prefix + suffix;
    EXPECT_THAT(Run().status().message(), HasSubstr("two outputs have the name"));
  }
  options_.train_text_path = options_.train_prefix;
  options_.inputs = {options_.train_prefix + ".tmp"};
  EXPECT_THAT(Run().status().message(), HasSubstr("would be overwritten"));
  EXPECT_FALSE(Exists(PosixFileSystem(), home_ / "out"));
}

TEST_F(PrepareOutputsTest, AFileWhereATextIsToGoIsRefusedUnlessItIsThatText) {
  for (std::string* path : {&options_.train_text_path, &options_.validation_text_path}) {
    const std::string notes = home_ / "notes.txt", text = *path;
    MustWrite(notes, "mine");
    *path = notes;
    const auto refused = Run();
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(refused.status().message(), HasSubstr("notes.txt: a file stands there"));
    EXPECT_FALSE(Exists(PosixFileSystem(), home_ / "out"));
    *path = text;
    MustRun();
    *path = notes;  // the shards stand, this text of them does not
    EXPECT_EQ(Run().status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(MustRead(notes), "mine");
    options_.overwrite = true;
    MustRun();
    EXPECT_EQ(MustRead(notes), MustRead(text));
    options_.overwrite = false;
    *path = text;
    Clear();
  }
}

TEST_F(PrepareOutputsTest, WhatStandsOutlivesInputsThatGiveNoShards) {
  MustRun();
  const auto before = Outputs();
  options_.overwrite = true;
  MustWrite(home_ / "c.jsonl", "{\"text\": \"only one\"}\n");
  options_.inputs = {home_ / "c.jsonl"};
  for (const double share : {1e-9, 1 - 1e-9}) {  // nothing held out, all held out
    options_.validation_fraction = share;
    EXPECT_EQ(Run().status().code(), absl::StatusCode::kDataLoss);
    ASSERT_TRUE(RemoveRecursively(PosixFileSystem(), PartsDirectory(options_)).ok());
    EXPECT_EQ(Outputs(), before);
  }
}

TEST_F(PrepareOutputsTest, WhatStandsOutlivesADiskThatIsFull) {
  MustRun();
  const auto before = Outputs();
  PrepareOptions other = options_;
  options_.overwrite = true;
  options_.seed = 6;
  FaultFileSystem clean(PosixFileSystem());
  ASSERT_TRUE(Run(clean).ok());
  int64_t mutation = 0, tried = 0;
  for (const FileOperationRecord& operation : clean.operations()) {
    if (operation.operation >= FileOperation::kOpenForRead) continue;
    const int64_t n = mutation++;
    // The descriptions are written when all the rest is there.
    if (operation.operation != FileOperation::kAppend || absl::EndsWith(operation.path, ".meta.json.tmp")) continue;
    std::swap(options_, other);
    Clear();
    MustRun();
    std::swap(options_, other);
    FaultFileSystem faulty(PosixFileSystem());
    faulty.InjectAt(n, Fault::kShortAppend);
    EXPECT_EQ(Run(faulty).status().code(), absl::StatusCode::kResourceExhausted);
    ASSERT_TRUE(RemoveRecursively(PosixFileSystem(), PartsDirectory(options_)).ok());
    EXPECT_EQ(Outputs(), before) << operation.path;
    ++tried;
  }
  EXPECT_GT(tried, 10);
}

// Of the old plan or of the new one, never of both.
TEST_F(PrepareOutputsTest, AfterAKillATrainingShardThatStandsMeansThatAllStands) {
  options_.overwrite = true;
  const PrepareOptions old = options_;
  options_.seed = 6;
  const PrepareOptions wanted = options_;
  const std::string plan = *PreparePlan(PosixFileSystem(), encoder_, wanted);
  int64_t operations = 0, stood[2] = {0, 0};
  for (int64_t n = -1; n < operations; ++n) {
    options_ = old;
    MustRun();
    options_ = wanted;
    FaultFileSystem fs(PosixFileSystem());
    if (n >= 0) fs.InjectAt(n, Fault::kKillBefore);
    EXPECT_EQ(Run(fs).ok(), n < 0);
    if (n < 0) operations = fs.mutation_count();
    const auto meta = ReadShardMeta(PosixFileSystem(), options_.train_prefix);
    if (!meta.ok()) continue;
    ++stood[meta->plan == plan];
    options_ = meta->plan == plan ? wanted : old;
    ASSERT_TRUE(RemoveRecursively(PosixFileSystem(), PartsDirectory(options_)).ok());
    EXPECT_TRUE(MustRun().already_there) << n;
  }
  EXPECT_GT(stood[0], 10);
  EXPECT_GT(stood[1], 1);
  EXPECT_LT(stood[0] + stood[1], operations);  // and sometimes neither
}

TEST_F(PrepareOutputsTest, OtherSettingsUseNoPartAndOverwriteNothingUnasked) {
  MustRun();
  const auto before = Outputs();
  options_.seed = 6;
  const auto refused = Run();
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.status().message(), HasSubstr("other settings or inputs"));
  EXPECT_EQ(Outputs(), before);
  options_.overwrite = true;
  EXPECT_EQ(MustRun().chunks_reused, 0);
  EXPECT_NE(Outputs(), before);
}

}  // namespace
}  // namespace shoestring
