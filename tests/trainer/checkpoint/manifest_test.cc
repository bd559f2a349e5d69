// Tests of manifests: one encoding, and everything that cannot be is refused.
#include "trainer/checkpoint/manifest.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "trainer/checkpoint/digest.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

checkpoint::Manifest Good() {
  checkpoint::Manifest manifest;
  manifest.set_format_version(1);
  manifest.mutable_header()->set_step(100);
  manifest.set_block_bytes(1000);
  for (const char* name : {"a.safetensors", "b.safetensors"}) {
    checkpoint::File& file = *manifest.add_files();
    file.set_name(name);
    file.set_size_bytes(2500);
    file.set_block_sums(std::string(48, 's'));
  }
  for (const char* name : {"w", "x"}) {
    checkpoint::Tensor& tensor = *manifest.add_tensors();
    tensor.set_kind(checkpoint::Tensor::WEIGHTS);
    tensor.set_name(name);
    tensor.set_dtype("F32");
    tensor.add_shape(4);
    tensor.add_shape(6);
    for (int half = 0; half < 2; ++half) {
      checkpoint::Slice& slice = *tensor.add_slices();
      slice.set_file(half);
      slice.add_offset(2 * half);
      slice.add_offset(0);
      slice.add_shape(2);
      slice.add_shape(6);
    }
  }
  manifest.set_state_sha256(std::string(32, 'd'));
  return manifest;
}

// Bytes as if the manifest were valid.
std::string Sealed(std::string bytes) {
  const std::string sum = BlockSum(bytes);
  return bytes + "\x7a\x10" + sum;  // field 15, 16 bytes
}

TEST(ManifestTest, DecodesWhatItEncodes) {
  checkpoint::Manifest manifest = Good();
  const std::string bytes = EncodeManifest(manifest);
  const auto decoded = DecodeManifest(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->SerializeAsString(), bytes);
  EXPECT_EQ(decoded->header().step(), 100);
}

TEST(ManifestTest, EveryFlippedBitAndEveryTruncationIsSeen) {
  checkpoint::Manifest manifest = Good();
  const std::string bytes = EncodeManifest(manifest);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    EXPECT_FALSE(DecodeManifest(flipped).ok()) << bit;
  }
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(DecodeManifest(bytes.substr(0, size)).ok()) << size;
  EXPECT_FALSE(DecodeManifest(bytes + '\0').ok());
}

TEST(ManifestTest, OtherEncodingsOfTheSameMeaningAreRefused) {
  checkpoint::Manifest manifest = Good();
  const std::string body = manifest.SerializeAsString();
  EXPECT_TRUE(DecodeManifest(Sealed(body)).ok());
  // An unknown field; a scalar said twice; a varint that is longer than it must be.
  for (const std::string& extra :
       {std::string("\x48\x01", 2), std::string("\x08\x01", 2), std::string("\x48\x81\x00", 3)}) {
    const auto decoded = DecodeManifest(Sealed(body + extra));
    EXPECT_THAT(std::string(decoded.status().message()), HasSubstr("canonical"));
  }
}

TEST(ManifestTest, ALaterVersionIsNamed) {
  checkpoint::Manifest manifest = Good();
  manifest.set_format_version(2);
  const absl::Status status =
      DecodeManifest(Sealed(manifest.SerializeAsString() + std::string("\x48\x01", 2))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("format version 2"));
}

struct BadManifest {
  const char* name;
  std::function<void(checkpoint::Manifest&)> spoil;
  const char* problem;
};

class BadManifestTest : public testing::TestWithParam<BadManifest> {};

TEST_P(BadManifestTest, IsRefused) {
  checkpoint::Manifest manifest = Good();
  GetParam().spoil(manifest);
  const absl::Status status = DecodeManifest(Sealed(manifest.SerializeAsString())).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().problem));
}

using M = checkpoint::Manifest;
constexpr int64_t kHuge = int64_t{1} << 62;

INSTANTIATE_TEST_SUITE_P(
    Table, BadManifestTest,
    testing::Values(
        BadManifest{"version_0", [](M& m) { m.set_format_version(0); }, "version 0"},
        BadManifest{"block_0", [](M& m) { m.set_block_bytes(0); }, "blocks of 0 bytes"},
        BadManifest{"block_huge", [](M& m) { m.set_block_bytes(kHuge); }, "blocks of"},
        BadManifest{"step_negative", [](M& m) { m.mutable_header()->set_step(-1); }, "below 0"},
        BadManifest{"no_digest", [](M& m) { m.clear_state_sha256(); }, "no digest"},
        BadManifest{"parent_without_digest", [](M& m) { m.mutable_parent()->set_step(1); }, "parent"},
        BadManifest{"file_parent", [](M& m) { m.mutable_files(0)->set_name(".."); }, "not a legal name"},
        BadManifest{"file_path", [](M& m) { m.mutable_files(0)->set_name("../a"); }, "not a legal name"},
        BadManifest{"file_absolute", [](M& m) { m.mutable_files(0)->set_name("/a"); }, "not a legal name"},
        BadManifest{"file_nul", [](M& m) { m.mutable_files(0)->set_name(std::string("a\0b", 3)); }, "not a legal name"},
        BadManifest{"file_long", [](M& m) { m.mutable_files(0)->set_name(std::string(256, 'a')); }, "not a legal name"},
        BadManifest{"file_look_alike", [](M& m) { m.mutable_files(0)->set_name("\xd0\xb0"); }, "not a legal name"},
        BadManifest{"file_is_manifest", [](M& m) { m.mutable_files(0)->set_name("manifest.pb"); }, "not a legal name"},
        BadManifest{"file_twice", [](M& m) { m.mutable_files(0)->set_name("b.safetensors"); }, "listed twice"},
        BadManifest{"file_empty", [](M& m) { m.mutable_files(0)->set_size_bytes(0); }, "has no size"},
        BadManifest{"file_huge", [](M& m) { m.mutable_files(0)->set_size_bytes(kHuge); }, "block checksums"},
        BadManifest{"sum_missing", [](M& m) { m.mutable_files(0)->set_block_sums(std::string(32, 's')); }, "needs 3"},
        BadManifest{"sum_cut", [](M& m) { m.mutable_files(0)->set_block_sums(std::string(47, 's')); }, "needs 3"},
        BadManifest{"no_kind", [](M& m) { m.mutable_tensors(0)->clear_kind(); }, "no legal kind"},
        BadManifest{"tensor_path", [](M& m) { m.mutable_tensors(0)->set_name("a/b"); }, "no legal kind and name"},
        BadManifest{"tensor_order", [](M& m) { m.mutable_tensors(0)->set_name("y"); }, "out of order"},
        BadManifest{"tensor_twice", [](M& m) { m.mutable_tensors(0)->set_name("x"); }, "listed twice"},
        BadManifest{"dtype", [](M& m) { m.mutable_tensors(0)->set_dtype("F99"); }, "unknown dtype"},
        BadManifest{"shape_zero", [](M& m) { m.mutable_tensors(0)->set_shape(0, 0); }, "impossible shape"},
        BadManifest{"shape_none", [](M& m) { m.mutable_tensors(0)->clear_shape(); }, "impossible shape"},
        BadManifest{"shape_overflow", [](M& m) { m.mutable_tensors(0)->set_shape(0, kHuge); }, "impossible shape"},
        BadManifest{"slice_file", [](M& m) { m.mutable_tensors(0)->mutable_slices(0)->set_file(2); }, "not listed"},
        BadManifest{"slice_file_negative", [](M& m) { m.mutable_tensors(0)->mutable_slices(0)->set_file(-1); },
                    "not listed"},
        BadManifest{"slice_same_file", [](M& m) { m.mutable_tensors(0)->mutable_slices(0)->set_file(1); },
                    "two slices in one file"},
        BadManifest{"slice_outside", [](M& m) { m.mutable_tensors(0)->mutable_slices(1)->set_offset(0, 3); },
                    "outside"},
        BadManifest{"slice_offset_huge",
                    [](M& m) { m.mutable_tensors(0)->mutable_slices(1)->set_offset(0, kHuge + (kHuge - 1)); },
                    "outside"},
        BadManifest{"slice_negative", [](M& m) { m.mutable_tensors(0)->mutable_slices(1)->set_offset(0, -1); },
                    "outside"},
        BadManifest{"slice_rank", [](M& m) { m.mutable_tensors(0)->mutable_slices(1)->add_shape(1); }, "outside"},
        BadManifest{"slice_overlap", [](M& m) { m.mutable_tensors(0)->mutable_slices(1)->set_offset(0, 1); },
                    "overlap"},
        BadManifest{"slice_absent", [](M& m) { m.mutable_tensors(0)->mutable_slices()->RemoveLast(); }, "not covered"},
        BadManifest{"slices_none", [](M& m) { m.mutable_tensors(0)->clear_slices(); }, "not covered"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace shoestring
