// Preparation: every token once, the same bytes on any number of threads and after any interruption.
#include "data/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/fault_file_system.h"
#include "data/prepare_encode.h"
#include "tests/data/prepare_fixture.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

TEST_F(PrepareTest, ConcatenationIsTheDocumentsInOrder) {
  options_.packing = Packing::kConcatenate;
  const PrepareSummary summary = MustRun();
  EXPECT_EQ(Sequences(options_.train_prefix), Expected(false));
  EXPECT_EQ(summary.train.documents + summary.validation.documents, 200);
  EXPECT_EQ(summary.empty_documents, 1);
  EXPECT_GT(summary.chunks, 10);
  EXPECT_GT(summary.fim_documents, 20);
}

TEST_F(PrepareTest, ValidationIsPlainTextBehindOneEos) {
  const PrepareSummary summary = MustRun();
  std::vector<std::vector<int32_t>> sequences = Sequences(options_.validation_prefix);
  ASSERT_FALSE(sequences.empty());
  EXPECT_EQ(sequences[0].front(), kByteEos);
  sequences[0].erase(sequences[0].begin());
  EXPECT_EQ(sequences, Expected(true));
  // A byte a token and an eos a document: no fill-in-the-middle, no splits.
  EXPECT_EQ(summary.validation.tokens, summary.validation.text_bytes + summary.validation.documents + 1);
  EXPECT_NEAR(static_cast<double>(summary.validation.documents), 40.0, 18.0);
  EXPECT_EQ(summary.validation.settings.role, "validation");
  EXPECT_EQ(summary.validation.packing, Packing::kConcatenate);
}

TEST_F(PrepareTest, BestFitHoldsEveryTokenOfEveryDocumentOnce) {
  const PrepareSummary summary = MustRun();
  const size_t capacity = 65;
  std::multiset<std::vector<int32_t>> pieces, expected;
  for (const auto& document : Expected(false)) {
    for (size_t at = 0; at < document.size(); at += capacity) {
      expected.insert({document.begin() + at, document.begin() + std::min(at + capacity, document.size())});
    }
  }
  int64_t whole = 0;
  for (const auto& sequence : Sequences(options_.train_prefix)) {
    ASSERT_LE(sequence.size(), capacity);
    // Cut behind each eos: a piece without one fills its sequence, so this is exact.
    auto start = sequence.begin();
    while (start != sequence.end()) {
      auto end = std::find(start, sequence.end(), kByteEos);
      if (end != sequence.end()) ++end;
      pieces.insert({start, end});
      start = end;
      ++whole;
    }
  }
  EXPECT_EQ(pieces, expected);
  EXPECT_GT(whole, static_cast<int64_t>(Sequences(options_.train_prefix).size()));
  EXPECT_GT(summary.cut_documents, 5);
  EXPECT_EQ(summary.train.sequence_length, 64);
}

TEST_F(PrepareTest, RawTextIsTheSameSplit) {
  const PrepareSummary summary = MustRun();
  std::string train, validation;
  for (size_t i = 0; i < documents_.size(); ++i) {
    (IsHeldOut(options_, static_cast<int64_t>(i)) ? validation : train) += documents_[i];
  }
  EXPECT_EQ(MustRead(options_.train_text_path), train);
  EXPECT_EQ(MustRead(options_.validation_text_path), validation);
  EXPECT_EQ(summary.train.text_bytes, static_cast<int64_t>(train.size()));
  EXPECT_EQ(summary.validation.text_bytes, static_cast<int64_t>(validation.size()));
}

TEST_F(PrepareTest, FillInTheMiddleHasTheRightOrderOfFields) {
  options_.fim_rate = 1.0;
  options_.token_split_rate = 0.0;
  options_.packing = Packing::kConcatenate;
  MustRun();
  for (const auto& tokens : Sequences(options_.train_prefix)) {
    ASSERT_EQ(tokens.front(), kByteFimBegin);
    const auto hole = std::find(tokens.begin(), tokens.end(), kByteFimHole);
    const auto end = std::find(hole, tokens.end(), kByteFimEnd);
    ASSERT_NE(end, tokens.end());
    ASSERT_EQ(tokens.back(), kByteEos);
    std::vector<int32_t> text(tokens.begin() + 1, hole);  // prefix
    text.insert(text.end(), end + 1, tokens.end() - 1);   // middle
    text.insert(text.end(), hole + 1, end);               // suffix
    std::string bytes;
    for (const int32_t id : text) bytes.push_back(static_cast<char>(id - kFirstByte));
    EXPECT_THAT(documents_, ::testing::Contains(bytes));
  }
}

TEST_F(PrepareTest, ThreadsDoNotChangeAByte) {
  for (const Packing packing : {Packing::kBestFit, Packing::kConcatenate}) {
    options_.packing = packing;
    options_.threads = 1;
    MustRun();
    const auto alone = Outputs();
    EXPECT_EQ(alone.size(), 8);
    for (const int threads : {2, 5}) {
      Clear();
      options_.threads = threads;
      MustRun();
      EXPECT_EQ(Outputs(), alone) << threads;
    }
    Clear();
  }
}

TEST_F(PrepareTest, ASecondRunDoesNothing) {
  MustRun();
  FaultFileSystem fs(PosixFileSystem());
  const auto again = Run(fs);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->already_there);
  EXPECT_EQ(fs.mutation_count(), 0);
  EXPECT_EQ(again->train.tokens, MustRun().train.tokens);
}

TEST_F(PrepareTest, AKillAtAnyOperationIsHealedByTheNextRun) {
  documents_ = SomeDocuments(40);
  std::string text;
  for (const std::string& document : documents_) text += document + "\n\n";
  MustWrite(home_ / "c.txt", text);
  options_.inputs = {home_ / "c.txt"};
  options_.reader.split = TextSplit::kBlankLines;
  FaultFileSystem clean(PosixFileSystem());
  ASSERT_TRUE(Run(clean).ok());
  const auto wanted = Outputs();
  const int64_t operations = clean.mutation_count();
  ASSERT_GT(operations, 40);
  for (const Fault fault : {Fault::kKillBefore, Fault::kKillDuring, Fault::kKillAfter}) {
    for (int64_t n = 0; n < operations; ++n) {
      Clear();
      FaultFileSystem faulty(PosixFileSystem());
      faulty.InjectAt(n, fault);
      EXPECT_FALSE(Run(faulty).ok());
      const auto healed = Run();
      ASSERT_TRUE(healed.ok()) << n << ": " << healed.status();
      ASSERT_EQ(Outputs(), wanted) << "killed at " << n;
    }
  }
}

TEST_F(PrepareTest, AFullDiskAtAnyOperationIsReportedAndHealed) {
  FaultFileSystem clean(PosixFileSystem());
  ASSERT_TRUE(Run(clean).ok());
  const auto wanted = Outputs();
  for (int64_t n = 0; n < clean.mutation_count(); n += 3) {
    Clear();
    FaultFileSystem faulty(PosixFileSystem());
    faulty.InjectAt(n, Fault::kShortAppend);
    const absl::Status status = Run(faulty).status();
    // The first try at removing the parts' directory, which is not empty yet, fails on any disk.
    EXPECT_TRUE(absl::IsResourceExhausted(status) || (status.ok() && Outputs() == wanted)) << n << ": " << status;
    ASSERT_TRUE(Run().ok());
    ASSERT_EQ(Outputs(), wanted) << n;
  }
}

TEST_F(PrepareTest, PowerLossAfterSuccessLosesNothing) {
  FaultFileSystem fs(PosixFileSystem());
  options_.train_text_path = home_ / "texts/train.raw";
  ASSERT_TRUE(fs.TrackDurability(home_.path()).ok());
  ASSERT_TRUE(Run(fs).ok());
  const auto wanted = Outputs();
  ASSERT_FALSE(wanted.empty());
  ASSERT_TRUE(fs.LosePower(PowerLoss::kDropUnsynced).ok());
  const auto again = Run();
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->already_there);
  const auto after = Outputs();
  EXPECT_EQ(after, wanted);
}

// Leaves the parts of an interrupted preparation.
void StopBeforePacking(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options) {
  FaultFileSystem faulty(fs);
  const auto stop = [&faulty](const PrepareProgress& progress) {
    if (progress.stage == PrepareStage::kPack) faulty.InjectAt(faulty.mutation_count(), Fault::kKillBefore);
  };
  ASSERT_FALSE(Prepare(faulty, encoder, options, stop).ok());
}

TEST_F(PrepareTest, FinishedPartsAreUsedAgain) {
  const PrepareSummary wanted = MustRun();
  const auto bytes = Outputs();
  for (const int threads : {1, 3}) {
    Clear();
    options_.threads = threads;
    StopBeforePacking(PosixFileSystem(), encoder_, options_);
    const PrepareSummary summary = MustRun();
    EXPECT_EQ(summary.chunks_reused, wanted.chunks) << threads;
    EXPECT_EQ(Outputs(), bytes);
  }
}

TEST_F(PrepareTest, DamagedAndForeignPartsAreMadeAgain) {
  const PrepareSummary wanted = MustRun();
  const auto bytes = Outputs();
  Clear();
  StopBeforePacking(PosixFileSystem(), encoder_, options_);
  const std::string parts = options_.train_prefix + ".parts";
  std::string damaged = MustRead(PartPath(parts, 2));
  damaged[damaged.size() / 2] ^= 1;
  MustWrite(PartPath(parts, 2), damaged);
  MustWrite(PartPath(parts, 3), "short");
  MustWrite(PartPath(parts, 4), MustRead(PartPath(parts, 5)));  // whole, but of another text
  const PrepareSummary summary = MustRun();
  EXPECT_EQ(summary.chunks_reused, wanted.chunks - 3);
  EXPECT_EQ(Outputs(), bytes);
}

TEST_F(PrepareTest, PartsThatChangeBeforePackingAreRefused) {
  for (const bool other_text : {false, true}) {
    Clear();
    bool replaced = false;
    const auto status = Prepare(PosixFileSystem(), encoder_, options_, [&](const PrepareProgress& progress) {
      if (progress.stage != PrepareStage::kPack || replaced) return;
      replaced = true;
      const std::string parts = PartsDirectory(options_);
      const std::string text_hash = (*PartReader::Open(PosixFileSystem(), PartPath(parts, 3)))->key().text_hash;
      const std::string plan = *PreparePlan(PosixFileSystem(), encoder_, options_);
      const PartKey key = {other_text ? plan : std::string(32, '0'), other_text ? std::string(32, '0') : text_hash};
      ASSERT_TRUE(WritePart(PosixFileSystem(), PartPath(parts, 3), key, EncodedPart{{{1, 1}}, {kByteEos}}).ok());
    });
    EXPECT_EQ(status.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(status.status().message(), HasSubstr("part_00000003: was replaced"));
    EXPECT_FALSE(Exists(PosixFileSystem(), MetaPath(options_.train_prefix)));
  }
}

TEST_F(PrepareTest, ThePlanCoversEverySetting) {
  const auto plan = [this] { return *PreparePlan(PosixFileSystem(), encoder_, options_); };
  std::set<std::string> plans = {plan()};
  const auto differs = [&](auto change) {
    const PrepareOptions options = options_;
    const TokenEncoder encoder = encoder_;
    change();
    EXPECT_TRUE(plans.insert(plan()).second);
    options_ = options;
    encoder_ = encoder;
  };
  differs([this] { options_.seed = 1; });
  differs([this] { options_.fim_rate = 0.31; });
  differs([this] { options_.token_split_rate = 0.3; });
  differs([this] { options_.validation_fraction = 0.3; });
  differs([this] { options_.packing = Packing::kConcatenate; });
  differs([this] { options_.sequence_length = 65; });
  differs([this] { options_.chunk_bytes = 701; });
  differs([this] { options_.window_tokens = 3001; });
  differs([this] { options_.reader.json_key = "body"; });
  differs([this] { options_.reader.split = TextSplit::kBlankLines; });
  differs([this] { options_.reader.document_bytes = 9; });
  differs([this] { options_.inputs.pop_back(); });
  differs([this] { std::swap(options_.inputs[0], options_.inputs[1]); });
  differs([this] { encoder_.fingerprint = "other"; });
  differs([this] { encoder_.eos = 6; });
  options_.threads = 7;  // how, not what
  options_.overwrite = true;
  EXPECT_FALSE(plans.insert(plan()).second);
  differs([this] { MustWrite(home_ / "b.jsonl", "{\"text\": \"new\"}\n"); });
}

TEST_F(PrepareTest, BadTextStopsWithItsPlace) {
  MustWrite(home_ / "b.jsonl", "{\"text\": \"ok\"}\n{\"txt\": 1}\n");
  for (const int threads : {1, 3}) {
    options_.threads = threads;
    const auto result = Run();
    EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(result.status().message(), HasSubstr("b.jsonl:2"));
  }
}

TEST_F(PrepareTest, AFailingTokenizerNamesTheDocument) {
  const auto encode = encoder_.encode;
  encoder_.encode = [encode](absl::string_view text) -> absl::StatusOr<std::vector<int32_t>> {
    if (text.find("document 17\n") != text.npos) return absl::InvalidArgumentError("cannot");
    return encode(text);
  };
  options_.fim_rate = 0.0;
  for (const int threads : {1, 4}) {
    options_.threads = threads;
    EXPECT_THAT(Run().status().message(), HasSubstr("a.jsonl:18: cannot"));
  }
}

// The first document fails long after a later one did, while the reader waits for room in the queue.
TEST_F(PrepareTest, TheErrorOfTheEarliestChunkWins) {
  std::atomic<bool> later_failed = false;
  encoder_.encode = [&](absl::string_view text) -> absl::StatusOr<std::vector<int32_t>> {
    if (text.find("document 0\n") != text.npos) {
      for (int i = 0; i < 200 && !later_failed; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      std::this_thread::sleep_for(std::chrono::milliseconds(200));  // for the other error to arrive
      return absl::InvalidArgumentError("first");
    }
    later_failed = true;
    return absl::InvalidArgumentError("later");
  };
  options_.fim_rate = 0.0;
  options_.chunk_bytes = 1;
  options_.threads = 2;
  EXPECT_THAT(Run().status().message(), HasSubstr("a.jsonl:1: first"));
}

TEST_F(PrepareTest, OptionsAreCheckedAllAtOnce) {
  encoder_.eos = -1;
  encoder_.fim_hole = -1;
  options_.inputs.clear();
  options_.threads = 0;
  options_.validation_fraction = 1.5;
  options_.token_split_rate = std::nan("");
  options_.sequence_length = 0;
  options_.train_text_path = options_.train_prefix + ".bin";
  const auto status = Run().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* problem : {"no input", "end-of-sentence", "fill-in-the-middle tokens", "threads", "validation share",
                              "split rate", "sequence length", "two outputs"}) {
    EXPECT_THAT(status.message(), HasSubstr(problem));
  }
}

TEST_F(PrepareTest, ShardsWithoutDocumentsAreRefused) {
  MustWrite(home_ / "c.jsonl", "{\"text\": \"only one\"}\n");
  options_.inputs = {home_ / "c.jsonl"};
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kDataLoss);
  MustWrite(home_ / "c.jsonl", "");
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(PrepareTest, ProgressCountsUp) {
  int64_t encoded = 0, packed = 0, last_documents = 0;
  const auto summary = Prepare(PosixFileSystem(), encoder_, options_, [&](const PrepareProgress& progress) {
    (progress.stage == PrepareStage::kEncode ? encoded : packed) = progress.chunks;
    last_documents = progress.documents;
  });
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(encoded, summary->chunks);
  EXPECT_EQ(packed, summary->chunks);
  EXPECT_EQ(last_documents, 200);
}

}  // namespace
}  // namespace shoestring
