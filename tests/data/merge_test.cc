// Merging and importing shards, and the look at their tokens.
#include "data/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/fault_file_system.h"
#include "data/data_stat.h"
#include "data/output_file.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class MergeTest : public ::testing::Test {
 protected:
  MergeTest() {
    // One document of two sequences, to see that the document index is joined and not rebuilt.
    auto writer = ShardWriter::Create(PosixFileSystem(), home_ / "a", SmallMeta());
    CHECK((*writer)->AddSequence({5, 6}).ok());
    CHECK((*writer)->AddSequence({7, 1}).ok());
    (*writer)->EndDocument();
    CHECK((*writer)->Finish(1, 9).ok());
    WriteShard(home_ / "b", {{8, 1}, {9, 9, 1}}, SmallMeta());
    options_.inputs = {home_ / "a", home_ / "b"};
    options_.output = home_ / "ab";
  }
  absl::StatusOr<ShardMeta> Merge() { return MergeShards(PosixFileSystem(), options_); }

  TestDirectory home_;
  MergeOptions options_;
};

TEST_F(MergeTest, JoinsTokensAndDocuments) {
  const auto meta = Merge();
  ASSERT_TRUE(meta.ok()) << meta.status();
  EXPECT_EQ(meta->documents, 3);
  EXPECT_EQ(meta->text_bytes, 0);  // unknown for b
  const auto shard = ShardReader::Open(PosixFileSystem(), options_.output, {});
  ASSERT_TRUE(shard.ok());
  EXPECT_EQ((*shard)->meta(), *meta);
  std::vector<int32_t> tokens(9);
  ASSERT_TRUE((*shard)->Read(0, 9, tokens.data()).ok());
  EXPECT_THAT(tokens, ElementsAre(5, 6, 7, 1, 8, 1, 9, 9, 1));
  EXPECT_EQ((*shard)->sequences(), 4);
  ASSERT_EQ((*shard)->index_documents(), 3);
  EXPECT_EQ((*shard)->DocumentStart(1), 2);
  EXPECT_EQ((*shard)->DocumentStart(3), 4);
}

TEST_F(MergeTest, ImportsAPlainShard) {
  ASSERT_TRUE(PosixFileSystem().Remove(MetaPath(home_ / "a")).ok());
  options_.inputs = {home_ / "a"};
  EXPECT_EQ(Merge().status().code(), absl::StatusCode::kDataLoss);
  options_.open.plain = PlainShard{"theirs", 250, 1};
  const auto meta = Merge();
  ASSERT_TRUE(meta.ok()) << meta.status();
  EXPECT_EQ(meta->tokenizer_fingerprint, "theirs");
  EXPECT_EQ(MustRead(BinPath(home_ / "a")), MustRead(BinPath(options_.output)));
  EXPECT_EQ(MustRead(IdxPath(home_ / "a")), MustRead(IdxPath(options_.output)));
  ShardOpenOptions ours;
  ours.tokenizer_fingerprint = "theirs";
  EXPECT_TRUE(ShardReader::Open(PosixFileSystem(), options_.output, ours).ok());
}

TEST_F(MergeTest, ShardsThatDifferAreNotMerged) {
  const auto refused = [this](auto change, const std::string& message) {
    ShardMeta meta = SmallMeta();
    change(meta);
    WriteShard(home_ / "b", {{8, 1}}, meta);
    const auto merged = Merge();
    EXPECT_EQ(merged.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(merged.status().message(), HasSubstr(message));
    EXPECT_FALSE(Exists(PosixFileSystem(), BinPath(options_.output)));
  };
  refused([](ShardMeta& meta) { meta.tokenizer_fingerprint = "x"; }, "another tokenizer");
  refused([](ShardMeta& meta) { meta.vocab_size = 301; }, "another vocabulary size");
  refused([](ShardMeta& meta) { meta.eos_id = 2; }, "another eos id");
  refused([](ShardMeta& meta) { meta.packing = Packing::kBestFit, meta.sequence_length = 8; }, "another packing");
  refused([](ShardMeta& meta) { meta.settings.fim_rate = 0.1; }, "fill-in-the-middle rate");
  refused([](ShardMeta& meta) { meta.settings.token_split_rate = 0.1; }, "token split rate");
  refused([](ShardMeta& meta) { meta.settings.role = "validation"; }, "another role");
}

TEST_F(MergeTest, DamagedInputsAreNotMerged) {
  MustWrite(BinPath(home_ / "b"), std::string("\x08\0\1\0\x09\0\x0A\0\1\0", 10));
  EXPECT_THAT(Merge().status().message(), HasSubstr("do not match their checksum"));
  EXPECT_FALSE(Exists(PosixFileSystem(), MetaPath(options_.output)));
}

TEST_F(MergeTest, WhatStandsOutlivesInputsThatTurnOutDamaged) {
  const auto wanted = Merge();
  ASSERT_TRUE(wanted.ok());
  MustWrite(BinPath(home_ / "b"), std::string("\x08\0\1\0\x09\0\x0A\0\1\0", 10));
  options_.overwrite = true;
  EXPECT_EQ(Merge().status().code(), absl::StatusCode::kDataLoss);
  const auto shard = ShardReader::Open(PosixFileSystem(), options_.output, {});
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_TRUE((*shard)->VerifyAll().ok());
  EXPECT_EQ((*shard)->meta(), *wanted);
}

TEST_F(MergeTest, NothingIsOverwrittenUnasked) {
  ASSERT_TRUE(Merge().ok());
  EXPECT_EQ(Merge().status().code(), absl::StatusCode::kFailedPrecondition);
  options_.overwrite = true;
  EXPECT_TRUE(Merge().ok());
  options_.output = home_ / "a";
  EXPECT_EQ(Merge().status().code(), absl::StatusCode::kInvalidArgument);
  options_.inputs.clear();
  EXPECT_EQ(Merge().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(MergeTest, OnlyOneWritesToAPrefix) {
  const auto other = LockOutput(PosixFileSystem(), options_.output);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(Merge().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(Exists(PosixFileSystem(), BinPath(options_.output)));
  options_.output = home_ / "./b";
  options_.overwrite = true;
  EXPECT_EQ(Merge().status().code(), absl::StatusCode::kInvalidArgument);
}

// Bytes that are no UTF-8 by themselves are escaped, text is not, and nothing is escaped twice.
TEST_F(MergeTest, StatSpellsTokensOnce) {
  const auto shard = ShardReader::Open(PosixFileSystem(), home_ / "a", {});
  const auto stat = ComputeDataStat(**shard, {});
  const std::string text = FormatDataStat((*shard)->meta(), *stat, [](int32_t id) -> std::string {
    return id == 1 ? "<｜end▁of▁sentence｜>" : id == 5 ? "\xe2\x96" : "a\n";
  });
  for (const char* part : {"\"<｜end▁of▁sentence｜>\"", "\"\\xe2\\x96\"", "\"a\\n\""}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST_F(MergeTest, APathWithItsSuffixIsToldThePrefix) {
  for (const char* suffix : {".bin", ".idx", ".meta.json"}) {
    const absl::Status status = ShardReader::Open(PosixFileSystem(), home_ / "a" + suffix, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()), ::testing::EndsWith("; a shard goes by its prefix, " + home_ / "a"))
        << suffix;
  }
}

TEST_F(MergeTest, AFailureAnywhereLeavesNoFinishedShard) {
  FaultFileSystem clean(PosixFileSystem());
  ASSERT_TRUE(MergeShards(clean, options_).ok());
  options_.overwrite = true;
  for (int64_t n = 0; n < clean.mutation_count(); ++n) {
    PosixFileSystem().Remove(MetaPath(options_.output)).IgnoreError();
    FaultFileSystem faulty(PosixFileSystem());
    faulty.InjectAt(n, Fault::kShortAppend);
    const auto merged = MergeShards(faulty, options_);
    EXPECT_FALSE(merged.ok()) << n;
    const auto shard = ShardReader::Open(PosixFileSystem(), options_.output, {});
    if (shard.ok()) {
      EXPECT_TRUE((*shard)->VerifyAll().ok()) << n;  // only the last sync failed
    }
  }
}

TEST_F(MergeTest, StatCountsWhatIsThere) {
  ShardMeta meta = SmallMeta();
  meta.packing = Packing::kBestFit;
  meta.sequence_length = 8;
  auto writer = ShardWriter::Create(PosixFileSystem(), home_ / "s", meta);
  // The first sequence ends without an eos: packing cut it there.
  for (const std::vector<int32_t>& sequence : {std::vector<int32_t>{6, 1, 5, 5, 5}, std::vector<int32_t>{5, 6, 1}}) {
    ASSERT_TRUE((*writer)->AddSequence(sequence).ok());
    (*writer)->EndDocument();
  }
  ASSERT_TRUE((*writer)->Finish(3, 24).ok());
  const auto shard = ShardReader::Open(PosixFileSystem(), home_ / "s", {});
  const auto stat = ComputeDataStat(**shard, {});
  ASSERT_TRUE(stat.ok());
  EXPECT_EQ(stat->tokens, 8);
  EXPECT_EQ(stat->pieces, 3);
  EXPECT_DOUBLE_EQ(stat->entropy_bits, 0.5 * 1 + 2 * 0.25 * 2);
  EXPECT_DOUBLE_EQ(stat->special_share, 0.25);
  EXPECT_DOUBLE_EQ(stat->never_seen_share, 297.0 / 300.0);
  EXPECT_DOUBLE_EQ(stat->bytes_per_token, 3.0);
  EXPECT_THAT(stat->piece_lengths, ElementsAre(0, 3));
  EXPECT_THAT(stat->sequence_lengths, ElementsAre(0, 1, 1));
  ASSERT_EQ(stat->top.size(), 3);
  EXPECT_EQ(stat->top[0].id, 5);
  EXPECT_EQ(stat->top[0].count, 4);
  EXPECT_EQ(stat->top[1].id, 1);  // before 6, which is as frequent
  EXPECT_THAT(stat->warnings, IsEmpty());
  const std::string text =
      FormatDataStat(meta, *stat, [](int32_t id) { return std::string(1, static_cast<char>('a' + id)); });
  for (const char* part : {"BEST_FIT for 8", "1.500 bits", "50.00 %  \"f\"", "99.00 % of 300", "4 .. 7"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST_F(MergeTest, StatWarnsOfAWrongTokenizer) {
  std::vector<int32_t> unknown(200000, 7);
  unknown.back() = 1;
  auto writer = ShardWriter::Create(PosixFileSystem(), home_ / "w", SmallMeta(1500));
  ASSERT_TRUE((*writer)->AddSequence(unknown).ok());
  (*writer)->EndDocument();
  ASSERT_TRUE((*writer)->Finish(1, 200000).ok());
  const auto shard = ShardReader::Open(PosixFileSystem(), home_ / "w", {});
  DataStatOptions options;
  options.is_special = [](int32_t id) { return id < 8; };
  const auto stat = ComputeDataStat(**shard, options);
  ASSERT_TRUE(stat.ok());
  EXPECT_THAT(stat->warnings, ElementsAre(HasSubstr("token 7 makes up 100.0 %"), HasSubstr("are special"),
                                          HasSubstr("never occurs"), HasSubstr("hardly merges")));
  EXPECT_THAT(FormatDataStat(SmallMeta(), *stat, nullptr), HasSubstr("warning: token 7"));
}

}  // namespace
}  // namespace shoestring
