// Documents out of plain and packed files, and what is refused on the way.
#include "data/text_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/fault_file_system.h"
#include "data/byte_stream.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct ReadResult {
  absl::Status status;
  std::vector<std::string> texts;
  std::vector<int64_t> lines;
};

ReadResult ReadAll(const std::string& path, const TextReaderOptions& options, FileSystem& fs = PosixFileSystem()) {
  ReadResult result;
  auto reader = OpenDocuments(fs, path, options);
  if (!reader.ok()) return {reader.status(), {}, {}};
  Document document;
  while (true) {
    const auto more = (*reader)->Next(&document);
    if (!more.ok()) result.status = more.status();
    if (!more.ok() || !*more) return result;
    result.texts.push_back(document.text);
    result.lines.push_back(document.line);
  }
}

std::string Gzip(const std::string& text) {
  z_stream stream = {};
  CHECK_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(text.size() + 1000, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  CHECK_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::string LongText() {
  std::string text;
  for (int i = 0; i < 200000; ++i) absl::StrAppend(&text, "line ", i * 7919 % 100003, i % 97 == 0 ? "\n\n" : "\n");
  return text;
}

class TextReaderTest : public ::testing::Test {
 protected:
  std::string Put(const std::string& name, absl::string_view contents) {
    const std::string path = home_ / name;
    MustWrite(path, contents);
    return path;
  }
  TestDirectory home_;
  TextReaderOptions options_;
};

TEST_F(TextReaderTest, WholeFileIsOneDocumentWithoutByteOrderMark) {
  const ReadResult result = ReadAll(Put("a.txt", "\xEF\xBB\xBFone\r\n\r\ntwo"), options_);
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.texts, ElementsAre("one\r\n\r\ntwo"));
}

TEST_F(TextReaderTest, EmptyFilesHaveNoDocument) {
  EXPECT_THAT(ReadAll(Put("a.txt", ""), options_).texts, IsEmpty());
  EXPECT_THAT(ReadAll(Put("b.txt", "\xEF\xBB\xBF"), options_).texts, IsEmpty());
  EXPECT_THAT(ReadAll(Put("c.jsonl", "\n \n"), options_).texts, IsEmpty());
}

TEST_F(TextReaderTest, BlankLinesCutAndStayWithTheDocumentBefore) {
  options_.split = TextSplit::kBlankLines;
  const std::string path = Put("a.txt", "\na\nb\n\n \r\n\nc\n\nd");
  const ReadResult result = ReadAll(path, options_);
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.texts, ElementsAre("\n", "a\nb\n\n \r\n\n", "c\n\n", "d"));
  EXPECT_THAT(result.lines, ElementsAre(1, 2, 7, 9));
  options_.document_bytes = 4;
  EXPECT_THAT(ReadAll(path, options_).texts, ElementsAre("\na\nb\n\n \r\n\n", "c\n\nd"));
}

// Where a byte-order mark could be, too, when the first reads give less than one.
TEST_F(TextReaderTest, ALineMayEndInTheFirstBytes) {
  options_.split = TextSplit::kBlankLines;
  const std::string rest = "a\n\nb\n";
  for (const char* first : {"\n", "\n\n", "x\n"}) {
    const std::vector<std::string> wanted = ReadAll(Put("plain.txt", first + rest), options_).texts;
    EXPECT_EQ(wanted.size(), first[0] == 'x' ? 2 : 3);
    EXPECT_EQ(ReadAll(Put("a.txt.gz", Gzip(first) + Gzip(rest)), options_).texts, wanted);
  }
  const std::string path = Put("b.txt", "\n\n");
  LineReader lines(*OpenByteStream(PosixFileSystem(), path), path, 100);
  absl::string_view line;
  for (const bool more : {true, true, false}) EXPECT_EQ(*lines.Next(&line), more);
  const ReadResult marked = ReadAll(Put("c.txt.gz", Gzip("\xEF\xBB") + Gzip("\xBF\n" + rest)), options_);
  EXPECT_THAT(marked.texts, ElementsAre("\n", "a\n\n", "b\n"));
}

TEST_F(TextReaderTest, BytesCutAtTheNextLineEnd) {
  options_.split = TextSplit::kBytes;
  options_.document_bytes = 5;
  EXPECT_THAT(ReadAll(Put("a.txt", "ab\ncd\nefghijk\nl\n"), options_).texts,
              ElementsAre("ab\ncd\n", "efghijk\n", "l\n"));
  options_.document_bytes = 0;
  EXPECT_EQ(ReadAll(Put("a.txt", "x"), options_).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(TextReaderTest, CuttingLosesNoByte) {
  const std::string text = LongText();
  const std::string path = Put("a.txt", text);
  for (const TextSplit split : {TextSplit::kWholeFile, TextSplit::kBlankLines, TextSplit::kBytes}) {
    options_.split = split;
    options_.document_bytes = 1000;
    const ReadResult result = ReadAll(path, options_);
    EXPECT_TRUE(result.status.ok());
    EXPECT_EQ(absl::StrJoin(result.texts, ""), text);
    EXPECT_EQ(result.texts.size() == 1, split == TextSplit::kWholeFile);
  }
}

TEST_F(TextReaderTest, PackedFilesOfSeveralMembersReadAsOne) {
  const std::string text = LongText();
  const size_t middle = text.size() / 2;
  const std::string head = text.substr(0, middle), tail = text.substr(middle);
  for (const std::string& path : {Put("a.txt.gz", Gzip(head) + Gzip("") + Gzip(tail)), Put("a.txt.dz", Gzip(text)),
                                  Put("a.txt.zst", Zstd(head) + Zstd("") + Zstd(tail))}) {
    const ReadResult result = ReadAll(path, options_);
    EXPECT_TRUE(result.status.ok()) << result.status;
    EXPECT_THAT(result.texts, ElementsAre(text)) << path;
  }
}

TEST_F(TextReaderTest, TruncationAtEveryByteIsDataLoss) {
  for (const auto& [name, packed] : std::vector<std::pair<std::string, std::string>>{
           {"a.txt.gz", Gzip("hello, hello, hello\n")}, {"a.txt.zst", Zstd("hello, hello, hello\n")}}) {
    for (size_t size = 0; size < packed.size(); ++size) {
      const ReadResult result = ReadAll(Put(name, packed.substr(0, size)), options_);
      EXPECT_EQ(result.status.code(), absl::StatusCode::kDataLoss) << name << " cut to " << size;
      EXPECT_THAT(result.status.message(), HasSubstr(name));
    }
  }
}

TEST_F(TextReaderTest, FlippedBytesOfGzipNeverPassForAnotherText) {
  const std::string packed = Gzip("hello, hello, hello\n");
  for (size_t i = 0; i < packed.size(); ++i) {
    std::string damaged = packed;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    const ReadResult result = ReadAll(Put("a.txt.gz", damaged), options_);
    // Time stamp and system in the header mean nothing.
    if (result.status.ok()) {
      EXPECT_THAT(result.texts, ElementsAre("hello, hello, hello\n")) << i;
    }
    if (i < 3 || i >= 10) {
      EXPECT_FALSE(result.status.ok()) << i;
    }
  }
}

TEST_F(TextReaderTest, JsonLinesGiveTheKey) {
  const std::string path = Put("a.jsonl",
                               "{\"text\": \"a\\n\\u00e9\", \"id\": 7}\r\n\n"
                               "{\"meta\": {\"text\": \"no\"}, \"text\": \"\"}\n{\"text\":\"\\ud83d\\ude00\"}");
  const ReadResult result = ReadAll(path, options_);
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.texts, ElementsAre("a\n\xC3\xA9", "", "\xF0\x9F\x98\x80"));
  EXPECT_THAT(result.lines, ElementsAre(1, 3, 4));
  options_.json_key = "body";
  EXPECT_THAT(ReadAll(Put("b.jsonl", "{\"body\": \"x\"}"), options_).texts, ElementsAre("x"));
}

TEST_F(TextReaderTest, BadContentIsNamedWithItsLine) {
  struct Case {
    const char* name;
    std::string contents;
    const char* message;
  };
  const Case cases[] = {
      {"a.txt", "ok\nab\xFFz\n", "a.txt:2: invalid UTF-8 at byte 5 of the file, byte 2 of the line (0xff)"},
      {"a.txt", "ab\xC3", ":1: invalid UTF-8 at byte 2"},                // cut short
      {"a.txt", "\xC0\xAF", ":1: invalid UTF-8 at byte 0"},              // overlong
      {"a.txt", "a\xED\xA0\x80", ":1: invalid UTF-8 at byte 1"},         // surrogate
      {"a.txt", "a\xF4\x90\x80\x80", ":1: invalid UTF-8 at byte 1"},     // above U+10FFFF
      {"a.txt", "\xEF\xBB\xBFx\xFE", ":1: invalid UTF-8 at byte 4 of"},  // counted with the mark
      {"a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\x80\"}\n", "a.jsonl:2: invalid UTF-8 at byte 24"},
      {"a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"a\"", ":2: not a JSON object"},
      {"a.jsonl", "{\"text\": \"a\"} x\n", ":1: not a JSON object"},
      {"a.jsonl", "{\"text\": 'a'}\n", ":1: not a JSON object"},
      {"a.jsonl", "{\"text\": \"\\ud800\"}\n", ":1: not a JSON object"},
      {"a.jsonl", "[1]\n", ":1: the line is JSON but not an object"},
      {"a.jsonl", "\n{\"txt\": \"a\"}\n", ":2: the object has no key \"text\""},
      {"a.jsonl", "{\"text\": 7}\n", ":1: the value of \"text\" is not a string"},
      {"a.jsonl", "{\"text\": null}\n", ":1: the value of \"text\" is not a string"},
  };
  for (const Case& c : cases) {
    const ReadResult result = ReadAll(Put(c.name, c.contents), options_);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kDataLoss) << c.message;
    EXPECT_THAT(result.status.message(), HasSubstr(c.message));
  }
}

TEST_F(TextReaderTest, ForeignNamesAndAbsentFiles) {
  EXPECT_EQ(ReadAll(Put("a.parquet", "x"), options_).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadAll(Put("a.gz", "x"), options_).status.code(), absl::StatusCode::kInvalidArgument);
  const ReadResult absent = ReadAll(home_ / "none.txt", options_);
  EXPECT_EQ(absent.status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(absent.status.message(), HasSubstr("none.txt"));
}

TEST_F(TextReaderTest, TooLargeDocumentsAreRefused) {
  options_.max_document_bytes = 10;
  EXPECT_EQ(ReadAll(Put("a.txt", "12345\n67890\n"), options_).status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(ReadAll(Put("b.txt", "1234567890"), options_).texts, ElementsAre("1234567890"));
  const std::string long_line(3 << 20, 'x');
  EXPECT_EQ(ReadAll(Put("c.jsonl", long_line), options_).status.code(), absl::StatusCode::kDataLoss);
}

TEST_F(TextReaderTest, EveryFailingReadIsReported) {
  for (const auto& [name, contents] : std::vector<std::pair<std::string, std::string>>{
           {"a.txt", LongText()}, {"a.txt.gz", Gzip(LongText())}, {"a.txt.zst", Zstd(LongText())}}) {
    const std::string path = Put(name, contents);
    FaultFileSystem clean(PosixFileSystem());
    ASSERT_TRUE(ReadAll(path, options_, clean).status.ok());
    ASSERT_GE(clean.read_count(), 2);
    for (int64_t n = 0; n < clean.read_count(); ++n) {
      FaultFileSystem faulty(PosixFileSystem());
      faulty.FailReadAt(n, absl::UnavailableError("I/O error"));
      EXPECT_EQ(ReadAll(path, options_, faulty).status.code(), absl::StatusCode::kUnavailable) << name << " read " << n;
    }
  }
}

}  // namespace
}  // namespace shoestring
