// Tests of the safetensors reader and writer: what is accepted, what is refused and in which words.
#include "trainer/checkpoint/safetensors.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/temp_dir.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string LittleEndian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  return bytes;
}

std::string FileOf(const std::string& json, size_t data_bytes) {
  return LittleEndian(json.size()) + json + std::string(data_bytes, 'x');
}

absl::StatusOr<SafetensorsFile> OpenBytes(const TempDir& dir, const std::string& bytes) {
  EXPECT_TRUE(WriteFile(PosixFileSystem(), dir.File("a.safetensors"), bytes).ok());
  return SafetensorsFile::Open(PosixFileSystem(), dir.File("a.safetensors"));
}

TEST(SafetensorsTest, WritesTheReferenceOrderAndReadsItBack) {
  const std::vector<SafetensorsPlanEntry> entries = {{"b.u8", DType::kU8, {3}},   {"b", DType::kF32, {2, 2}},
                                                     {"a", DType::kBF16, {5}},    {"scalar", DType::kF32, {}},
                                                     {"a\"\n", DType::kF32, {1}}, {"i", DType::kI64, {1}}};
  const SafetensorsPlan plan = PlanSafetensors(entries, {{"format", "pt"}, {"k", "\xc3\xa9\""}});
  EXPECT_THAT(plan.order, ElementsAre(5u, 4u, 1u, 3u, 2u, 0u));  // I64, F32 by name, BF16, U8
  EXPECT_EQ(plan.prefix.size() % 8, 0u);
  EXPECT_EQ(plan.size_bytes, static_cast<int64_t>(plan.prefix.size()) + 8 + 4 + 16 + 4 + 10 + 3);
  const TempDir dir;
  const std::string data = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHI";
  ASSERT_EQ(data.size(), 45u);
  const auto file = OpenBytes(dir, plan.prefix + data);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->header().metadata.at("k"), "\xc3\xa9\"");
  ASSERT_EQ(file->header().entries.size(), 6u);
  const SafetensorsEntry& entry = file->header().entries[2];
  EXPECT_EQ(entry.name, "b");
  EXPECT_EQ(entry.dtype, "F32");
  EXPECT_THAT(entry.shape, ElementsAre(2, 2));
  std::string bytes(4, '\0');
  ASSERT_TRUE(file->ReadAt(entry.offset + 1, 4, bytes.data()).ok());
  EXPECT_EQ(bytes, "defg");
}

TEST(SafetensorsTest, DTypeNamesAreInverse) {
  for (const DType dtype :
       {DType::kF32, DType::kBF16, DType::kE4M3, DType::kI32, DType::kI64, DType::kF64, DType::kU8}) {
    EXPECT_EQ(DTypeOfSafetensorsName(SafetensorsName(dtype)), dtype);
  }
  EXPECT_STREQ(SafetensorsName(DType::kE4M3), "F8_E4M3");
  EXPECT_FALSE(DTypeOfSafetensorsName("F16").has_value());
}

TEST(SafetensorsTest, AcceptsWhatOthersWrite) {
  const TempDir dir;
  EXPECT_TRUE(OpenBytes(dir, FileOf("{}", 0)).ok());
  EXPECT_TRUE(OpenBytes(dir, FileOf("{}     ", 0)).ok());
  // Not in the order of bytes, empty tensors, dtypes that are not ours, fields in another order.
  const auto file = OpenBytes(dir, FileOf(R"({"b":{"data_offsets":[4,8],"shape":[2],"dtype":"F16"},
      "e":{"dtype":"F32","shape":[0,9],"data_offsets":[4,4]},"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}})",
                                          8));
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : file->header().entries) names.push_back(entry.name);
  EXPECT_THAT(names, ElementsAre("a", "e", "b"));
}

struct BadFile {
  const char* name;
  std::string bytes;
  const char* problem;
};

class MalformedSafetensorsTest : public testing::TestWithParam<BadFile> {};

TEST_P(MalformedSafetensorsTest, IsRefusedByName) {
  const TempDir dir;
  const auto file = OpenBytes(dir, GetParam().bytes);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss) << file.status();
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(dir.File("a.safetensors")));
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(GetParam().problem));
}

std::string One(const std::string& fields) { return "{\"t\":{" + fields + "}}"; }
std::string Tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return One("\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets);
}

std::vector<BadFile> FilesOfBadForm() {
  const std::string good = Tensor("F32", "[2]", "[0,8]");
  const std::string inner = good.substr(1, good.size() - 2);
  return {
      {"empty", "", "too few for a header"},
      {"seven_bytes", "1234567", "too few for a header"},
      {"length_beyond_file", LittleEndian(3) + "{}", "ends before"},
      {"length_beyond_limit", LittleEndian(100'000'001) + "{}", "at most 100000000"},
      {"length_huge", LittleEndian(~uint64_t{0}) + "{}", "at most 100000000"},
      {"length_zero", LittleEndian(0), "does not begin with '{'"},
      {"space_first", FileOf(" " + good, 8), "does not begin with '{'"},
      {"byte_order_mark", FileOf("\xef\xbb\xbf" + good, 8), "does not begin with '{'"},
      {"list", FileOf("[]", 0), "does not begin with '{'"},
      {"cut_json", FileOf(good.substr(0, 20), 8), "no JSON"},
      {"two_documents", FileOf(good + good, 8), "no JSON"},
      {"zero_padding", FileOf(good + std::string(1, '\0'), 8), "no JSON"},
      {"invalid_utf8", FileOf("{\"\xff\":" + good.substr(5), 8), "no JSON"},
      {"duplicate_tensor", FileOf("{" + inner + "," + inner + "}", 8), "'t' is there twice"},
      {"duplicate_metadata", FileOf(R"({"__metadata__":{},"__metadata__":{}})", 0), "'__metadata__' is there twice"},
      {"duplicate_metadata_key", FileOf(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "metadata 'a' is there twice"},
      {"metadata_number", FileOf(R"({"__metadata__":{"a":1}})", 0), "__metadata__: a number"},
      {"metadata_nested", FileOf(R"({"__metadata__":{"a":{}}})", 0), "__metadata__: an object"},
      {"metadata_string", FileOf(R"({"__metadata__":"a"})", 0), "__metadata__: a string"},
      {"tensor_is_null", FileOf(R"({"t":null})", 0), "t: null"},
      {"tensor_is_list", FileOf(R"({"t":[]})", 0), "t: a list"},
      {"deep_list", FileOf(Tensor("F32", "[[2]]", "[0,8]"), 8), "t: a list"},
      {"no_dtype", FileOf(One(R"("shape":[2],"data_offsets":[0,8])"), 8), "needs dtype"},
      {"no_shape", FileOf(One(R"("dtype":"F32","data_offsets":[0,8])"), 8), "needs dtype"},
      {"no_offsets", FileOf(One(R"("dtype":"F32","shape":[2])"), 8), "needs dtype"},
      {"second_dtype", FileOf(One(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"), 8),
       "second field"},
      {"unknown_field", FileOf(One(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)"), 8), "field 'x'"},
      {"dtype_number", FileOf(One(R"("dtype":1,"shape":[2],"data_offsets":[0,8])"), 8), "t: a number"},
  };
}

std::vector<BadFile> FilesOfBadMeaning() {
  const std::string good = Tensor("F32", "[2]", "[0,8]");
  std::string ones;
  for (int i = 0; i < 64; ++i) ones += "1,";
  const std::string huge = "18446744073709551615";
  return {
      {"unknown_dtype", FileOf(Tensor("F33", "[2]", "[0,8]"), 8), "unknown dtype 'F33'"},
      {"negative_dimension", FileOf(Tensor("F32", "[-2]", "[0,8]"), 8), "t: a negative number"},
      {"fraction", FileOf(Tensor("F32", "[2.0]", "[0,8]"), 8), "not whole"},
      {"dimension_above_64_bits", FileOf(Tensor("F32", "[18446744073709551616]", "[0,8]"), 8), "not whole"},
      {"dimension_huge", FileOf(Tensor("F32", "[" + huge + "]", "[0,8]"), 8), "needs more than"},
      {"product_overflows", FileOf(Tensor("F32", "[4294967296,4294967296,4]", "[0,0]"), 0), "needs more than"},
      {"huge_beside_zero", FileOf(Tensor("F32", "[0," + huge + "]", "[0,0]"), 0), "needs more than"},
      {"shape_string", FileOf(Tensor("F32", "\"2\"", "[0,8]"), 8), "t: a string"},
      {"three_offsets", FileOf(Tensor("F32", "[2]", "[0,8,8]"), 8), "has 3 numbers"},
      {"one_offset", FileOf(Tensor("F32", "[2]", "[0]"), 8), "has 1 numbers"},
      {"offsets_reversed", FileOf(Tensor("F32", "[2]", "[8,0]"), 8), "are not in the file"},
      {"offsets_beyond", FileOf(Tensor("F32", "[2]", "[4,12]"), 8), "are not in the file"},
      {"offsets_huge", FileOf(Tensor("F32", "[2]", "[0," + huge + "]"), 8), "are not in the file"},
      {"size_differs", FileOf(Tensor("F32", "[2]", "[0,4]"), 8), "hold 4 bytes, dtype and shape need 8"},
      {"hole_at_begin", FileOf(Tensor("F32", "[1]", "[4,8]"), 8), "begins at byte 4 of the data"},
      {"bytes_left_over", FileOf(good, 9), "end at byte 8 of 9"},
      {"data_without_tensors", FileOf("{}", 1), "end at byte 0 of 1"},
      {"truncated_data", FileOf(good, 7), "needs more than the 7 bytes"},
      {"overlap",
       FileOf(
           R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
           7),
       "b: begins at byte 3"},
      {"same_place",
       FileOf(
           R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
           4),
       "begins at byte 0"},
      {"hole",
       FileOf(
           R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2],"data_offsets":[5,7]}})",
           7),
       "b: begins at byte 5"},
      {"many_dimensions", FileOf(Tensor("F32", "[" + ones + "1]", "[0,4]"), 4), "more than 64 numbers"},
  };
}

INSTANTIATE_TEST_SUITE_P(Form, MalformedSafetensorsTest, testing::ValuesIn(FilesOfBadForm()),
                         [](const auto& info) { return std::string(info.param.name); });
INSTANTIATE_TEST_SUITE_P(Meaning, MalformedSafetensorsTest, testing::ValuesIn(FilesOfBadMeaning()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(SafetensorsTest, EveryTruncationIsRefused) {
  const TempDir dir;
  const SafetensorsPlan plan = PlanSafetensors({{"a", DType::kF32, {3}}, {"b", DType::kBF16, {2}}}, {{"format", "pt"}});
  const std::string whole = plan.prefix + std::string(16, 'd');
  ASSERT_TRUE(OpenBytes(dir, whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(OpenBytes(dir, whole.substr(0, size)).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(SafetensorsTest, DeepNestingIsRefusedWithoutRecursion) {
  const TempDir dir;
  EXPECT_FALSE(OpenBytes(dir, FileOf("{\"t\":" + std::string(1 << 20, '['), 0)).ok());
  EXPECT_FALSE(OpenBytes(dir, FileOf(std::string(1 << 20, '{'), 0)).ok());
}

TEST(SafetensorsTest, AbsentFileKeepsTheFileSystemsCode) {
  const TempDir dir;
  EXPECT_EQ(SafetensorsFile::Open(PosixFileSystem(), dir.File("x")).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace shoestring
