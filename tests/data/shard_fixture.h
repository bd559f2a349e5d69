// A directory, a byte tokenizer and small shards for the tests of the data folder.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file_system.h"
#include "data/shard_writer.h"
#include "data/token_encoder.h"

namespace shoestring {

// An empty directory of the running test; gone with the object. In memory where the system has a place for that: these
// tests sync a lot.
class TestDirectory {
 public:
  TestDirectory() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = absl::StrCat("shoestring_", test->test_suite_name(), "_", test->name(), "_", ::getpid());
    for (char& c : name) c = c == '/' ? '_' : c;
    const std::string memory = "/dev/shm";
    path_ = JoinPath(Exists(PosixFileSystem(), memory) ? memory : ::testing::TempDir(), name);
    CHECK(PosixFileSystem().CreateDirectories(path_).ok());
  }
  ~TestDirectory() { RemoveRecursively(PosixFileSystem(), path_).IgnoreError(); }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return JoinPath(path_, name); }

 private:
  std::string path_;
};

inline std::string MustRead(const std::string& path) {
  auto contents = ReadFile(PosixFileSystem(), path);
  if (!contents.ok()) ADD_FAILURE() << contents.status();
  return contents.ok() ? *contents : "";
}

inline void MustWrite(const std::string& path, absl::string_view contents) {
  const absl::Status status = WriteFile(PosixFileSystem(), path, contents);
  ASSERT_TRUE(status.ok()) << status;
}

constexpr int32_t kByteEos = 1, kByteFimBegin = 2, kByteFimHole = 3, kByteFimEnd = 4, kFirstByte = 8;

// One token a byte, ids from 8; "split" puts id 5 before each line break it decides to split off.
inline TokenEncoder ByteEncoder() {
  TokenEncoder encoder;
  encoder.encode = [](absl::string_view text) -> absl::StatusOr<std::vector<int32_t>> {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(kFirstByte + static_cast<unsigned char>(c));
    return ids;
  };
  encoder.split_merged = [](absl::Span<const int32_t> ids, double rate, const Rng& rng) {
    std::vector<int32_t> result;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == kFirstByte + '\n' && rng.Uniform(i) < rate) result.push_back(5);
      result.push_back(ids[i]);
    }
    return result;
  };
  encoder.fingerprint = "byte-tokenizer";
  encoder.vocab_size = kFirstByte + 256;
  encoder.eos = kByteEos;
  encoder.fim_begin = kByteFimBegin;
  encoder.fim_hole = kByteFimHole;
  encoder.fim_end = kByteFimEnd;
  return encoder;
}

inline ShardMeta SmallMeta(int64_t vocab_size = 300) {
  ShardMeta meta;
  meta.tokenizer_fingerprint = "tok";
  meta.vocab_size = vocab_size;
  meta.eos_id = kByteEos;
  meta.plan = "plan";
  return meta;
}

// A shard with one document a sequence.
inline ShardMeta WriteShard(const std::string& prefix, const std::vector<std::vector<int32_t>>& sequences,
                            const ShardMeta& meta) {
  auto writer = ShardWriter::Create(PosixFileSystem(), prefix, meta);
  CHECK(writer.ok());
  for (const auto& sequence : sequences) {
    CHECK((*writer)->AddSequence(sequence).ok());
    (*writer)->EndDocument();
  }
  auto finished = (*writer)->Finish(static_cast<int64_t>(sequences.size()), 0);
  CHECK(finished.ok());
  return *finished;
}

}  // namespace shoestring
