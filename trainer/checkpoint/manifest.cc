// Encoding, decoding and checking of manifests.
#include "trainer/checkpoint/manifest.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "trainer/checkpoint/digest.h"
#include "trainer/checkpoint/safetensors.h"

namespace shoestring {
namespace {

using checkpoint::Manifest;

constexpr int kMaxDimensions = 8;
// Tag, length, 16 bytes: what the last field takes at the end of the encoding.
constexpr size_t kChecksumFieldBytes = 2 + kBlockSumBytes;

std::string Encode(const Manifest& manifest) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    CHECK(manifest.SerializeToCodedStream(&coded));
  }
  return bytes;
}

// Product of positive dimensions; nothing when one is not positive, there are too many, or the product overflows.
template <typename Dimensions>
std::optional<int64_t> ElementsOf(const Dimensions& shape) {
  if (shape.size() < 1 || shape.size() > kMaxDimensions) return std::nullopt;
  int64_t elements = 1;
  for (const int64_t dimension : shape) {
    if (dimension <= 0 || elements > (std::numeric_limits<int64_t>::max() >> 4) / dimension) return std::nullopt;
    elements *= dimension;
  }
  return elements;
}

absl::Status Bad(absl::string_view what, absl::string_view name, absl::string_view problem) {
  return absl::DataLossError(absl::StrCat(what, " '", absl::CHexEscape(name.substr(0, 200)), "': ", problem));
}

absl::Status ValidateFiles(const Manifest& manifest) {
  std::set<absl::string_view> names;
  for (const checkpoint::File& file : manifest.files()) {
    if (!IsPlainName(file.name()) || file.name() == kManifestName) return Bad("file", file.name(), "not a legal name");
    if (!names.insert(file.name()).second) return Bad("file", file.name(), "is listed twice");
    if (file.size_bytes() <= 0) return Bad("file", file.name(), "has no size");
    const auto blocks = static_cast<uint64_t>(BlockCount(file.size_bytes(), manifest.block_bytes()));
    if (file.block_sums().size() % kBlockSumBytes != 0 || file.block_sums().size() / kBlockSumBytes != blocks) {
      return Bad("file", file.name(), absl::StrCat("needs ", blocks, " block checksums"));
    }
  }
  return absl::OkStatus();
}

bool Overlap(const checkpoint::Slice& a, const checkpoint::Slice& b) {
  for (int d = 0; d < a.offset_size(); ++d) {
    if (a.offset(d) + a.shape(d) <= b.offset(d) || b.offset(d) + b.shape(d) <= a.offset(d)) return false;
  }
  return true;
}

absl::Status ValidateSlices(const checkpoint::Tensor& tensor, int files) {
  const std::optional<int64_t> elements = ElementsOf(tensor.shape());
  if (!elements.has_value()) return Bad("tensor", tensor.name(), "impossible shape");
  int64_t covered = 0;
  std::set<int> used;
  for (const checkpoint::Slice& slice : tensor.slices()) {
    if (slice.file() < 0 || slice.file() >= files || !slice.has_file()) {
      return Bad("tensor", tensor.name(), "lies in a file that is not listed");
    }
    if (!used.insert(slice.file()).second) return Bad("tensor", tensor.name(), "has two slices in one file");
    const std::optional<int64_t> size = ElementsOf(slice.shape());
    bool inside =
        size.has_value() && slice.shape_size() == tensor.shape_size() && slice.offset_size() == tensor.shape_size();
    for (int d = 0; inside && d < tensor.shape_size(); ++d) {
      inside = slice.offset(d) >= 0 && slice.shape(d) <= tensor.shape(d) &&
               slice.offset(d) <= tensor.shape(d) - slice.shape(d);
    }
    if (!inside) return Bad("tensor", tensor.name(), "has a slice outside of its shape");
    covered += *size;
    if (covered > *elements) return Bad("tensor", tensor.name(), "has slices that overlap");
  }
  // Boxes inside, none overlapping, and as many elements as the tensor: they cover it.
  for (int a = 0; a < tensor.slices_size(); ++a) {
    for (int b = 0; b < a; ++b) {
      if (Overlap(tensor.slices(a), tensor.slices(b))) return Bad("tensor", tensor.name(), "has slices that overlap");
    }
  }
  return covered == *elements ? absl::OkStatus() : Bad("tensor", tensor.name(), "is not covered by its slices");
}

absl::Status ValidateTensors(const Manifest& manifest) {
  const checkpoint::Tensor* before = nullptr;
  for (const checkpoint::Tensor& tensor : manifest.tensors()) {
    if (!tensor.has_kind() || !IsPlainName(tensor.name()))
      return Bad("tensor", tensor.name(), "no legal kind and name");
    if (before != nullptr && std::pair(before->kind(), before->name()) >= std::pair(tensor.kind(), tensor.name())) {
      return Bad("tensor", tensor.name(), "is out of order or listed twice");
    }
    before = &tensor;
    if (!DTypeOfSafetensorsName(tensor.dtype()).has_value()) return Bad("tensor", tensor.name(), "unknown dtype");
    RETURN_IF_ERROR(ValidateSlices(tensor, manifest.files_size()));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsPlainName(absl::string_view name) {
  constexpr size_t kLongest = 255;
  if (name.empty() || name.size() > kLongest || name.front() == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
}

int64_t BlockCount(int64_t size_bytes, int64_t block_bytes) {
  return size_bytes / block_bytes + (size_bytes % block_bytes != 0 ? 1 : 0);
}

absl::Status ValidateManifest(const Manifest& manifest) {
  if (manifest.format_version() != kCheckpointFormatVersion) {
    return absl::DataLossError(absl::StrCat("format version ", manifest.format_version(), " never existed"));
  }
  if (manifest.block_bytes() < kMinBlockBytes || manifest.block_bytes() > kMaxBlockBytes) {
    return absl::DataLossError(absl::StrCat("blocks of ", manifest.block_bytes(), " bytes"));
  }
  const checkpoint::SnapshotHeader& header = manifest.header();
  if (header.step() < 0 || header.consumed_tokens() < 0 || header.phase() < 0 || header.phase_step() < 0 ||
      header.phase_tokens() < 0 || header.phase_sequences() < 0 || header.generation() < 0) {
    return absl::DataLossError("a position below 0");
  }
  if (manifest.state_sha256().size() != kSha256Bytes) return absl::DataLossError("no digest of the state");
  if (manifest.has_parent() && manifest.parent().manifest_sha256().size() != kSha256Bytes) {
    return absl::DataLossError("a parent without its digest");
  }
  RETURN_IF_ERROR(ValidateFiles(manifest));
  return ValidateTensors(manifest);
}

std::string EncodeManifest(Manifest& manifest) {
  const absl::Status valid = ValidateManifest(manifest);
  CHECK_EQ(valid.ToString(), absl::OkStatus().ToString());
  manifest.clear_checksum();
  manifest.set_checksum(BlockSum(Encode(manifest)));
  return Encode(manifest);
}

absl::StatusOr<Manifest> DecodeManifest(absl::string_view bytes) {
  if (bytes.size() < kChecksumFieldBytes) return absl::DataLossError("is too short");
  const absl::string_view covered = bytes.substr(0, bytes.size() - kChecksumFieldBytes);
  if (bytes.substr(bytes.size() - kBlockSumBytes) != BlockSum(covered)) {
    return absl::DataLossError("does not match its own checksum");
  }
  Manifest manifest;
  if (!manifest.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError("is no manifest");
  }
  if (manifest.format_version() > kCheckpointFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat("has format version ", manifest.format_version(),
                                                      "; this program reads up to ", kCheckpointFormatVersion,
                                                      ": use the program that wrote it, or a later one"));
  }
  // A field that is not known, or said twice, would make two encodings of one meaning.
  manifest.DiscardUnknownFields();
  if (Encode(manifest) != bytes) return absl::DataLossError("is not in canonical form");
  RETURN_IF_ERROR(ValidateManifest(manifest));
  return manifest;
}

}  // namespace shoestring
