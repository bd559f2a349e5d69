// Shards: the bytes on disk, the way back, and every kind of damage.
#include "data/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/fault_file_system.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

const std::vector<std::vector<int32_t>> kSequences = {{5, 6, 1}, {299, 1}, {7, 8, 9, 1}};
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

absl::StatusOr<std::unique_ptr<ShardReader>> Open(const std::string& prefix, const ShardOpenOptions& options = {}) {
  return ShardReader::Open(PosixFileSystem(), prefix, options);
}

// Opens and reads everything: what any use of the shard would meet.
absl::Status OpenAndVerify(const std::string& prefix, const ShardOpenOptions& options = {}) {
  const auto reader = Open(prefix, options);
  return reader.ok() ? (*reader)->VerifyAll() : reader.status();
}

ShardOpenOptions Plain() {
  ShardOpenOptions options;
  options.plain = PlainShard{"foreign", 300, kByteEos};
  return options;
}

template <typename T>
void Patch(const std::string& path, size_t offset, T value) {
  std::string bytes = MustRead(path);
  ASSERT_LE(offset + sizeof(T), bytes.size());
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
  MustWrite(path, bytes);
}

class ShardTest : public ::testing::Test {
 protected:
  TestDirectory home_;
  std::string prefix_ = home_ / "books";
};

TEST_F(ShardTest, BytesAreMegatrons) {
  WriteShard(prefix_, {{5, 258}, {1}}, SmallMeta());
  EXPECT_EQ(absl::BytesToHexString(MustRead(BinPath(prefix_))), "050002010100");
  EXPECT_EQ(absl::BytesToHexString(MustRead(IdxPath(prefix_))),
            "4d4d494449445800000100000000000000"  // MMIDIDX, version
            "08"
            "0200000000000000"
            "0300000000000000"                                    // u16, sequences, document entries
            "0200000001000000"                                    // lengths
            "00000000000000000400000000000000"                    // offsets
            "000000000000000001000000000000000200000000000000");  // document index
  WriteShard(prefix_, {{5, 100000}}, SmallMeta(129280));
  EXPECT_EQ(absl::BytesToHexString(MustRead(BinPath(prefix_))), "05000000a0860100");
  EXPECT_EQ(MustRead(IdxPath(prefix_))[17], 4);
}

TEST_F(ShardTest, TypeOfTokensFollowsTheVocabulary) {
  EXPECT_EQ(TokenBytesFor(65499), 2);
  EXPECT_EQ(TokenBytesFor(65500), 4);
}

TEST_F(ShardTest, RoundTrip) {
  for (const int64_t vocab_size : {300, 200000}) {
    const ShardMeta meta = WriteShard(prefix_, kSequences, SmallMeta(vocab_size));
    const auto reader = Open(prefix_);
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ((*reader)->meta(), meta);
    EXPECT_EQ((*reader)->tokens(), 9);
    EXPECT_EQ((*reader)->sequences(), 3);
    EXPECT_EQ((*reader)->index_documents(), 3);
    EXPECT_EQ((*reader)->SequenceStart(2), 5);
    EXPECT_EQ((*reader)->SequenceLength(2), 4);
    EXPECT_EQ((*reader)->DocumentStart(3), 3);
    std::vector<int32_t> tokens(9);
    ASSERT_TRUE((*reader)->Read(0, 9, tokens.data()).ok());
    EXPECT_THAT(tokens, ElementsAre(5, 6, 1, 299, 1, 7, 8, 9, 1));
    EXPECT_TRUE((*reader)->VerifyAll().ok());
  }
}

TEST_F(ShardTest, MetaPrintsAndParses) {
  ShardMeta meta = SmallMeta();
  meta.packing = Packing::kBestFit;
  meta.sequence_length = 4096;
  meta.settings = {~uint64_t{0}, 0.1, 1e-300, 0.015, "train"};
  meta.sources = {{"a \"quoted\" \xC3\xA9.txt", int64_t{1} << 60}, {"b", 0}};
  meta.bin_checksums = {"00", "11"};
  const auto parsed = ParseShardMeta(PrintShardMeta(meta));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, meta);
}

// The printed form of `json` with the checksum of itself that a description carries.
std::string Signed(nlohmann::json json) {
  json.erase("self");
  json["self"] = ChecksumHex(json.dump());
  return json.dump();
}

TEST_F(ShardTest, FieldsThatNobodyReadsAreRefused) {
  ShardMeta meta = SmallMeta();
  meta.sources = {{"a.txt", 12}};
  const auto good = nlohmann::json::parse(PrintShardMeta(meta));
  ASSERT_TRUE(ParseShardMeta(Signed(good)).ok());
  for (const char* place : {"", "/settings", "/sources/0", "/checksums"}) {
    nlohmann::json bad = good;
    bad[nlohmann::json::json_pointer(place)]["sead"] = 1;
    const absl::Status status = ParseShardMeta(Signed(bad)).status();
    EXPECT_EQ(status.code(), kDataLoss) << place;
    EXPECT_THAT(status.message(), HasSubstr("field \"sead\" is not known")) << place;
  }
  std::string twice = PrintShardMeta(meta);
  twice.insert(1, "\"eos_id\": 7,");
  EXPECT_EQ(ParseShardMeta(twice).status().code(), kDataLoss);
  EXPECT_THAT(ParseShardMeta(twice).status().message(), HasSubstr("\"eos_id\" appears twice"));
}

TEST_F(ShardTest, AHostileDescriptionCostsNeitherStackNorMemory) {
  const std::string deep(1000000, '['), end(1000000, ']');
  for (const char* field : {"plan", "other"}) {
    const std::string text = absl::StrCat(R"({"format_version": 1, "self": "", ")", field, "\": ", deep, end, "}");
    EXPECT_EQ(ParseShardMeta(text).status().code(), kDataLoss);
  }
  auto large = nlohmann::json::parse(PrintShardMeta(SmallMeta()));
  large["vocab_size"] = kMaxVocabSize + 1;
  EXPECT_THAT(ParseShardMeta(Signed(large)).status().message(), HasSubstr("vocab_size"));
  large["vocab_size"] = kMaxVocabSize;
  EXPECT_TRUE(ParseShardMeta(Signed(large)).ok());
  WriteShard(prefix_, kSequences, SmallMeta());
  ASSERT_TRUE(PosixFileSystem().Truncate(MetaPath(prefix_), int64_t{1} << 40).ok());
  EXPECT_EQ(Open(prefix_).status().code(), kDataLoss);
  EXPECT_THAT(Open(prefix_).status().message(), HasSubstr("meta.json: has 1099511627776 bytes"));
}

TEST_F(ShardTest, EveryFlippedByteOfEveryFileIsRefusedOrWithoutEffect) {
  const ShardMeta meta = WriteShard(prefix_, kSequences, SmallMeta());
  for (const std::string& path : {IdxPath(prefix_), BinPath(prefix_), MetaPath(prefix_)}) {
    const std::string good = MustRead(path);
    for (size_t i = 0; i < good.size(); ++i) {
      for (const int mask : {0x01, 0x20, 0x80, 0xFF}) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ mask);
        MustWrite(path, bad);
        const auto reader = Open(prefix_);
        const absl::Status status = reader.ok() ? (*reader)->VerifyAll() : reader.status();
        if (status.ok() && path == MetaPath(prefix_)) {
          EXPECT_EQ((*reader)->meta(), meta) << "byte " << i;  // white space between fields
        } else {
          EXPECT_EQ(status.code(), kDataLoss) << path << " byte " << i << ": " << status;
        }
      }
    }
    MustWrite(path, good);
  }
  EXPECT_TRUE(OpenAndVerify(prefix_).ok());
}

TEST_F(ShardTest, EveryFlippedBitOfAPlainIndexIsRefused) {
  // Without checksums the structure alone must betray the damage. One document: its two entries are fixed.
  auto writer = ShardWriter::Create(PosixFileSystem(), prefix_, SmallMeta());
  for (const auto& sequence : kSequences) ASSERT_TRUE((*writer)->AddSequence(sequence).ok());
  (*writer)->EndDocument();
  ASSERT_TRUE((*writer)->Finish(1, 0).ok());
  ASSERT_TRUE(PosixFileSystem().Remove(MetaPath(prefix_)).ok());
  ASSERT_TRUE(OpenAndVerify(prefix_, Plain()).ok());
  const std::string good = MustRead(IdxPath(prefix_));
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    MustWrite(IdxPath(prefix_), bad);
    EXPECT_EQ(OpenAndVerify(prefix_, Plain()).code(), kDataLoss) << "bit " << bit;
  }
}

TEST_F(ShardTest, EveryTruncationIsRefused) {
  WriteShard(prefix_, kSequences, SmallMeta());
  for (const bool plain : {false, true}) {
    if (plain) {
      ASSERT_TRUE(PosixFileSystem().Remove(MetaPath(prefix_)).ok());
    }
    for (const std::string& path : {IdxPath(prefix_), BinPath(prefix_)}) {
      const std::string good = MustRead(path);
      for (size_t size = 0; size < good.size(); ++size) {
        MustWrite(path, good.substr(0, size));
        EXPECT_EQ(OpenAndVerify(prefix_, plain ? Plain() : ShardOpenOptions{}).code(), kDataLoss)
            << path << " " << size;
      }
      MustWrite(path, good + '\0');
      EXPECT_EQ(OpenAndVerify(prefix_, plain ? Plain() : ShardOpenOptions{}).code(), kDataLoss) << path << " longer";
      MustWrite(path, good);
    }
  }
}

TEST_F(ShardTest, BadFieldsOfAPlainIndexAreNamed) {
  // Offsets: version 9, type 17, sequences 18, entries 26, lengths 34, offsets 46, documents 70.
  WriteShard(prefix_, kSequences, SmallMeta());
  ASSERT_TRUE(PosixFileSystem().Remove(MetaPath(prefix_)).ok());
  const std::string idx = IdxPath(prefix_);
  const std::string good = MustRead(idx);
  const auto expect = [&](const std::string& message) {
    const absl::Status status = OpenAndVerify(prefix_, Plain());
    EXPECT_EQ(status.code(), kDataLoss);
    EXPECT_THAT(status.message(), HasSubstr(message));
    MustWrite(idx, good);
  };
  Patch<uint64_t>(idx, 9, 2), expect("index version 2");
  Patch<uint8_t>(idx, 17, 7), expect("token type code 7");
  Patch<uint64_t>(idx, 18, uint64_t{1} << 62), expect("do not fit");
  Patch<uint64_t>(idx, 26, ~uint64_t{0}), expect("do not fit");
  Patch<int32_t>(idx, 34, -3), expect("sequence 0 has length -3");
  Patch<int32_t>(idx, 38, 0), expect("sequence 1 has length 0");
  Patch<int64_t>(idx, 54, 8), expect("sequence 1 begins at byte 8");
  Patch<int64_t>(idx, 70, 1), expect("does not begin with 0");
  Patch<int64_t>(idx, 78, 3), Patch<int64_t>(idx, 86, 2), expect("falls at entry 2");
  Patch<int64_t>(idx, 94, 1), expect("falls at entry 3");
  Patch<int64_t>(idx, 94, 2), expect("ends at 2, not at 3");
  Patch<int64_t>(idx, 94, 4), expect("ends at 4, not at 3");
  MustWrite(idx, good + std::string(3, '\0')), expect("mode array");
  MustWrite(idx, "MMIDID?" + good.substr(7)), expect("not a Megatron index");
  EXPECT_TRUE(OpenAndVerify(prefix_, Plain()).ok());
}

TEST_F(ShardTest, IdsOutsideTheVocabularyAreRefused) {
  WriteShard(prefix_, kSequences, SmallMeta());
  ASSERT_TRUE(PosixFileSystem().Remove(MetaPath(prefix_)).ok());
  ShardOpenOptions small = Plain();
  small.plain->vocab_size = 299;
  const auto reader = Open(prefix_, small);
  ASSERT_TRUE(reader.ok());
  int32_t token = 0;
  EXPECT_TRUE((*reader)->Read(2, 1, &token).ok());
  const absl::Status status = (*reader)->Read(3, 1, &token);
  EXPECT_EQ(status.code(), kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("token 3 is 299"));
}

TEST_F(ShardTest, ChecksumsAreVerifiedLazily) {
  WriteShard(prefix_, kSequences, SmallMeta());
  Patch<uint16_t>(BinPath(prefix_), 0, 6);
  const auto lazy = Open(prefix_);
  ASSERT_TRUE(lazy.ok()) << lazy.status();
  int32_t token = 0;
  EXPECT_EQ((*lazy)->Read(8, 1, &token).code(), kDataLoss);
  EXPECT_EQ((*lazy)->VerifyAll().code(), kDataLoss);
}

TEST_F(ShardTest, AnotherTokenizerIsRefused) {
  WriteShard(prefix_, kSequences, SmallMeta());
  ShardOpenOptions options;
  options.tokenizer_fingerprint = "tok";
  EXPECT_TRUE(Open(prefix_, options).ok());
  options.tokenizer_fingerprint = "other";
  EXPECT_THAT(Open(prefix_, options).status().message(), HasSubstr("prepared with tokenizer tok, the run uses other"));
  ASSERT_TRUE(PosixFileSystem().Remove(MetaPath(prefix_)).ok());
  options.plain = Plain().plain;
  EXPECT_EQ(Open(prefix_, options).status().code(), kDataLoss);
  options.tokenizer_fingerprint = "foreign";
  EXPECT_TRUE(Open(prefix_, options).ok());
}

TEST_F(ShardTest, PlainShardsMustBeDescribed) {
  WriteShard(prefix_, kSequences, SmallMeta());
  ASSERT_TRUE(PosixFileSystem().Remove(MetaPath(prefix_)).ok());
  EXPECT_THAT(Open(prefix_).status().message(), HasSubstr("plain Megatron"));
  ShardOpenOptions nameless = Plain();
  nameless.plain->tokenizer_fingerprint.clear();
  EXPECT_EQ(Open(prefix_, nameless).status().code(), absl::StatusCode::kInvalidArgument);
  ShardOpenOptions vast = Plain();
  vast.plain->vocab_size = kMaxVocabSize + 1;
  EXPECT_EQ(Open(prefix_, vast).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(PosixFileSystem().Remove(BinPath(prefix_)).ok());
  EXPECT_EQ(Open(prefix_, Plain()).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ShardTest, MixedUpFilesAreRefused) {
  WriteShard(prefix_, kSequences, SmallMeta());
  const std::string bin = MustRead(BinPath(prefix_));
  WriteShard(prefix_, {{5, 6, 1}, {299, 1}, {7, 8, 10, 1}}, SmallMeta());
  MustWrite(BinPath(prefix_), bin);
  EXPECT_THAT(OpenAndVerify(prefix_).message(), HasSubstr("do not match their checksum"));
}

TEST_F(ShardTest, WideAndSignedTypesAreRead) {
  const std::string header("MMIDIDX\0\0\1\0\0\0\0\0\0\0", 17);
  for (const auto& [code, width] : std::vector<std::pair<char, int>>{{3, 2}, {5, 8}}) {
    std::string bin;
    for (const int64_t token : {7, 299}) bin.append(reinterpret_cast<const char*>(&token), static_cast<size_t>(width));
    std::string idx = header + code;
    for (const int64_t count : {1, 2}) idx.append(reinterpret_cast<const char*>(&count), 8);
    const int32_t length = 2;
    idx.append(reinterpret_cast<const char*>(&length), 4);
    for (const int64_t value : {0, 0, 1}) idx.append(reinterpret_cast<const char*>(&value), 8);
    MustWrite(BinPath(prefix_), bin);
    MustWrite(IdxPath(prefix_), idx);
    const auto reader = Open(prefix_, Plain());
    ASSERT_TRUE(reader.ok()) << reader.status();
    std::vector<int32_t> tokens(2);
    ASSERT_TRUE((*reader)->Read(0, 2, tokens.data()).ok());
    EXPECT_THAT(tokens, ElementsAre(7, 299));
    Patch<int16_t>(BinPath(prefix_), 0, -1);
    EXPECT_EQ(OpenAndVerify(prefix_, Plain()).code(), kDataLoss);
  }
}

TEST_F(ShardTest, MoreThanTwoToTheThirtyOneTokens) {
  // Six GB of holes: three sequences of 2^30 tokens, a token set beyond the reach of 32 bits.
  constexpr int64_t kLength = int64_t{1} << 30;
  std::string idx("MMIDIDX\0\0\1\0\0\0\0\0\0\0\10", 18);
  for (const int64_t count : {3, 2}) idx.append(reinterpret_cast<const char*>(&count), 8);
  const auto length = static_cast<int32_t>(kLength);
  for (int i = 0; i < 3; ++i) idx.append(reinterpret_cast<const char*>(&length), 4);
  for (const int64_t value : {int64_t{0}, 2 * kLength, 4 * kLength, int64_t{0}, int64_t{3}}) {
    idx.append(reinterpret_cast<const char*>(&value), 8);
  }
  MustWrite(IdxPath(prefix_), idx);
  MustWrite(BinPath(prefix_), "");
  ASSERT_TRUE(PosixFileSystem().Truncate(BinPath(prefix_), 6 * kLength - 2).ok());
  auto file = PosixFileSystem().OpenForAppend(BinPath(prefix_));
  ASSERT_TRUE((*file)->Append(absl::string_view("\x2A\0", 2)).ok());
  ASSERT_TRUE((*file)->Close().ok());
  const auto reader = Open(prefix_, Plain());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->tokens(), 3 * kLength);
  int32_t token = 0;
  ASSERT_TRUE((*reader)->Read((*reader)->SequenceStart(2) + kLength - 1, 1, &token).ok());
  EXPECT_EQ(token, 42);
  ASSERT_TRUE(PosixFileSystem().Remove(BinPath(prefix_)).ok());
}

TEST_F(ShardTest, EveryFailingOperationOfAWriteLeavesNoShardThatOpens) {
  const auto write = [this](FileSystem& fs) -> absl::Status {
    auto writer = ShardWriter::Create(fs, prefix_, SmallMeta());
    if (!writer.ok()) return writer.status();
    for (const auto& sequence : kSequences) {
      const absl::Status status = (*writer)->AddSequence(sequence);
      if (!status.ok()) return status;
      (*writer)->EndDocument();
    }
    return (*writer)->Finish(3, 0).status();
  };
  FaultFileSystem clean(PosixFileSystem());
  ASSERT_TRUE(write(clean).ok());
  const int64_t operations = clean.mutation_count();
  for (const Fault fault :
       {Fault::kFail, Fault::kShortAppend, Fault::kKillBefore, Fault::kKillDuring, Fault::kKillAfter}) {
    for (int64_t n = 0; n < operations; ++n) {
      WriteShard(prefix_, {{9, 9, 9, 9, 1}}, SmallMeta());  // an older shard stands there
      FaultFileSystem faulty(PosixFileSystem());
      faulty.InjectAt(n, fault);
      const absl::Status status = write(faulty);
      const auto reader = Open(prefix_);
      if (!reader.ok()) continue;
      // What opens is one of the two, whole.
      EXPECT_TRUE((*reader)->VerifyAll().ok()) << n;
      EXPECT_THAT((*reader)->tokens(), AnyOf(Eq(5), Eq(9))) << n;
      if (status.ok()) {
        EXPECT_EQ((*reader)->tokens(), 9);
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
