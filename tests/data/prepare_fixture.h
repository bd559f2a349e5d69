// Two files of documents, the options that prepare them, and a look at all that comes out.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/rng.h"
#include "data/prepare.h"
#include "data/prepare_encode.h"
#include "data/shard.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {

inline std::vector<std::string> SomeDocuments(int count) {
  const Rng rng(11, RngPurpose::kTest, 0);
  std::vector<std::string> documents;
  for (int i = 0; i < count; ++i) {
    std::string text = absl::StrCat("document ", i, "\n");
    while (text.size() < 10 + rng.Below(i, i % 10 == 0 ? 300 : 60)) absl::StrAppend(&text, "w", text.size(), " ");
    documents.push_back(text);
  }
  return documents;
}

class PrepareTest : public ::testing::Test {
 protected:
  PrepareTest() {
    std::string lines;
    for (const std::string& text : documents_) {
      std::string escaped = text;
      for (size_t at = 0; (at = escaped.find('\n', at)) != std::string::npos; at += 2) escaped.replace(at, 1, "\\n");
      absl::StrAppend(&lines, "{\"text\": \"", escaped, "\"}\n");
    }
    const size_t cut = lines.find("\n", lines.size() / 2) + 1;
    MustWrite(home_ / "a.jsonl", lines.substr(0, cut) + "{\"text\": \"\"}\n");
    MustWrite(home_ / "b.jsonl", lines.substr(cut));
    options_.inputs = {home_ / "a.jsonl", home_ / "b.jsonl"};
    options_.train_prefix = home_ / "out/train";
    options_.validation_prefix = home_ / "out/valid";
    options_.validation_fraction = 0.2;
    options_.sequence_length = 64;
    options_.seed = 5;
    options_.fim_rate = 0.3;
    options_.token_split_rate = 0.5;
    options_.chunk_bytes = 700;
    options_.window_tokens = 3000;
    options_.train_text_path = home_ / "out/train.raw";
    options_.validation_text_path = home_ / "out/valid.raw";
  }

  absl::StatusOr<PrepareSummary> Run(FileSystem& fs = PosixFileSystem()) {
    return Prepare(fs, encoder_, options_, nullptr);
  }
  PrepareSummary MustRun() {
    auto summary = Run();
    CHECK(summary.ok());
    return *summary;
  }
  // All that a preparation leaves, by name.
  std::map<std::string, std::string> Outputs() {
    std::map<std::string, std::string> outputs;
    const auto names = PosixFileSystem().List(home_ / "out");
    for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
      outputs[name] = MustRead(JoinPath(home_ / "out", name));
    }
    return outputs;
  }
  void Clear() { CHECK(RemoveRecursively(PosixFileSystem(), home_ / "out").ok()); }
  // The documents as they must come out, by the shard they belong to.
  std::vector<std::vector<int32_t>> Expected(bool held_out) {
    std::vector<std::vector<int32_t>> expected;
    for (size_t i = 0; i < documents_.size(); ++i) {
      PartDocument record;
      const auto tokens = EncodeDocument(encoder_, options_, documents_[i], static_cast<int64_t>(i), &record);
      if (record.held_out == held_out) expected.push_back(*tokens);
    }
    return expected;
  }
  static std::vector<std::vector<int32_t>> Sequences(const std::string& prefix) {
    const auto shard = ShardReader::Open(PosixFileSystem(), prefix, {});
    CHECK(shard.ok());
    std::vector<std::vector<int32_t>> sequences;
    for (int64_t i = 0; i < (*shard)->sequences(); ++i) {
      sequences.emplace_back((*shard)->SequenceLength(i));
      CHECK((*shard)->Read((*shard)->SequenceStart(i), (*shard)->SequenceLength(i), sequences.back().data()).ok());
    }
    return sequences;
  }

  TestDirectory home_;
  std::vector<std::string> documents_ = SomeDocuments(200);
  TokenEncoder encoder_ = ByteEncoder();
  PrepareOptions options_;
};

}  // namespace shoestring
