// The meaning of a safetensors header: every size checked against the file before it is believed.
#include "trainer/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/safetensors_header.h"

namespace shoestring {
namespace {

using safetensors_internal::ParseHeaderJson;
using safetensors_internal::RawEntry;
using safetensors_internal::RawHeader;

constexpr int64_t kLengthBytes = 8;

struct DTypeRow {
  const char* name;
  int64_t size_bytes;
  std::optional<DType> dtype;  // none: legal in a file, but nothing here computes with it
};

// Larger numbers first, as the reference implementation orders tensors in a file.
constexpr std::array<DTypeRow, 17> kDTypes = {{{"C64", 8, std::nullopt},
                                               {"U64", 8, std::nullopt},
                                               {"I64", 8, DType::kI64},
                                               {"F64", 8, DType::kF64},
                                               {"F32", 4, DType::kF32},
                                               {"U32", 4, std::nullopt},
                                               {"I32", 4, DType::kI32},
                                               {"BF16", 2, DType::kBF16},
                                               {"F16", 2, std::nullopt},
                                               {"U16", 2, std::nullopt},
                                               {"I16", 2, std::nullopt},
                                               {"F8_E8M0", 1, std::nullopt},
                                               {"F8_E4M3", 1, DType::kE4M3},
                                               {"F8_E5M2", 1, std::nullopt},
                                               {"I8", 1, std::nullopt},
                                               {"U8", 1, DType::kU8},
                                               {"BOOL", 1, std::nullopt}}};

const DTypeRow* FindDType(absl::string_view name) {
  const auto found =
      std::find_if(kDTypes.begin(), kDTypes.end(), [&](const DTypeRow& row) { return row.name == name; });
  return found == kDTypes.end() ? nullptr : &*found;
}

// The place of a dtype in the table, which is its place in a file.
size_t RankOf(DType dtype) {
  for (size_t i = 0; i < kDTypes.size(); ++i) {
    if (kDTypes[i].dtype == dtype) return i;
  }
  CHECK(false);
  return 0;
}

// Product of the shape and the element size; nothing if it does not fit below `limit`.
std::optional<int64_t> CheckedBytes(const std::vector<uint64_t>& shape, int64_t element_bytes, int64_t limit) {
  unsigned __int128 bytes = static_cast<unsigned __int128>(element_bytes);
  const bool empty = std::find(shape.begin(), shape.end(), 0u) != shape.end();
  for (const uint64_t dimension : shape) {
    if (dimension > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    if (empty) continue;
    bytes *= dimension;  // below 2^63 * 2^63: cannot overflow
    if (bytes > static_cast<unsigned __int128>(limit)) return std::nullopt;
  }
  return empty ? 0 : static_cast<int64_t>(bytes);
}

absl::StatusOr<SafetensorsEntry> CheckEntry(RawEntry raw, int64_t data_bytes) {
  const std::string shown = absl::CHexEscape(raw.name.substr(0, 200));
  const DTypeRow* const dtype = FindDType(raw.dtype);
  if (dtype == nullptr) {
    return absl::DataLossError(
        absl::StrCat(shown, ": unknown dtype '", absl::CHexEscape(raw.dtype.substr(0, 40)), "'"));
  }
  const std::optional<int64_t> size = CheckedBytes(raw.shape, dtype->size_bytes, data_bytes);
  if (!size.has_value()) {
    return absl::DataLossError(absl::StrCat(shown, ": shape [", absl::StrJoin(raw.shape, ", "),
                                            "] needs more than the ", data_bytes, " bytes of data in the file"));
  }
  const uint64_t begin = raw.data_offsets[0], end = raw.data_offsets[1];
  if (begin > end || end > static_cast<uint64_t>(data_bytes)) {
    return absl::DataLossError(absl::StrCat(shown, ": data_offsets [", begin, ", ", end,
                                            "] are not in the file, which has ", data_bytes, " bytes of data"));
  }
  if (static_cast<int64_t>(end - begin) != *size) {
    return absl::DataLossError(absl::StrCat(shown, ": data_offsets [", begin, ", ", end, "] hold ", end - begin,
                                            " bytes, dtype and shape need ", *size));
  }
  SafetensorsEntry entry{std::move(raw.name), std::move(raw.dtype), {}, static_cast<int64_t>(begin), *size};
  entry.shape.assign(raw.shape.begin(), raw.shape.end());
  return entry;
}

absl::Status CheckNoHoles(const std::vector<SafetensorsEntry>& entries, int64_t data_bytes) {
  int64_t end = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.offset != end) {
      return absl::DataLossError(absl::StrCat(absl::CHexEscape(entry.name), ": begins at byte ", entry.offset,
                                              " of the data, the tensor before it ends at ", end));
    }
    end += entry.size_bytes;
  }
  if (end == data_bytes) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the tensors end at byte ", end, " of ", data_bytes, " bytes of data"));
}

absl::StatusOr<SafetensorsHeader> ReadHeader(const ReadableFile& file) {
  const int64_t size = file.size_bytes();
  if (size < kLengthBytes) return absl::DataLossError(absl::StrCat("has ", size, " bytes, too few for a header"));
  std::array<unsigned char, kLengthBytes> length_bytes{};
  RETURN_IF_ERROR(file.ReadAt(0, kLengthBytes, reinterpret_cast<char*>(length_bytes.data())));
  uint64_t length = 0;
  for (size_t i = length_bytes.size(); i-- > 0;) length = length << 8 | length_bytes[i];
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return absl::DataLossError(
        absl::StrCat("says that its header has ", length, " bytes; at most ", kMaxSafetensorsHeaderBytes));
  }
  const auto header_bytes = static_cast<int64_t>(length);
  if (header_bytes > size - kLengthBytes) {
    return absl::DataLossError(absl::StrCat("says that its header has ", header_bytes, " bytes, but ends before"));
  }
  std::string json(static_cast<size_t>(header_bytes), '\0');
  RETURN_IF_ERROR(file.ReadAt(kLengthBytes, header_bytes, json.data()));
  return ParseSafetensorsHeader(json, size - kLengthBytes - header_bytes);
}

}  // namespace

const char* SafetensorsName(DType dtype) { return kDTypes[RankOf(dtype)].name; }

std::optional<DType> DTypeOfSafetensorsName(absl::string_view name) {
  const DTypeRow* const row = FindDType(name);
  return row == nullptr ? std::nullopt : row->dtype;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json, int64_t data_bytes) {
  ASSIGN_OR_RETURN(RawHeader raw, ParseHeaderJson(json));
  SafetensorsHeader header;
  header.metadata = std::move(raw.metadata);
  header.data_offset = kLengthBytes + static_cast<int64_t>(json.size());
  header.entries.reserve(raw.entries.size());
  for (RawEntry& entry : raw.entries) {
    ASSIGN_OR_RETURN(SafetensorsEntry checked, CheckEntry(std::move(entry), data_bytes));
    header.entries.push_back(std::move(checked));
  }
  // Empty tensors share their begin with the next one: the end decides.
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.size_bytes) < std::pair(b.offset, b.size_bytes);
  });
  RETURN_IF_ERROR(CheckNoHoles(header.entries, data_bytes));
  for (SafetensorsEntry& entry : header.entries) entry.offset += header.data_offset;
  return header;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, fs.OpenForRead(path));
  absl::StatusOr<SafetensorsHeader> header = ReadHeader(*file);
  if (absl::IsDataLoss(header.status())) return WithContext(header.status(), path);
  if (!header.ok()) return header.status();  // the file system's own: the path is in it
  return SafetensorsFile(path, std::move(file), *std::move(header));
}

SafetensorsPlan PlanSafetensors(const std::vector<SafetensorsPlanEntry>& entries,
                                const std::map<std::string, std::string>& metadata) {
  SafetensorsPlan plan;
  std::set<absl::string_view> names;
  for (size_t i = 0; i < entries.size(); ++i) {
    CHECK(names.insert(entries[i].name).second);
    plan.order.push_back(i);
  }
  std::sort(plan.order.begin(), plan.order.end(), [&](size_t a, size_t b) {
    return std::pair(RankOf(entries[a].dtype), entries[a].name) < std::pair(RankOf(entries[b].dtype), entries[b].name);
  });
  // Text by hand: a JSON library's ordered object looks up every name in all that came before it.
  std::string text = "{";
  if (!metadata.empty()) absl::StrAppend(&text, "\"__metadata__\":", nlohmann::json(metadata).dump(), ",");
  int64_t data_bytes = 0;
  for (const size_t i : plan.order) {
    int64_t size = SizeOf(entries[i].dtype);
    for (const int64_t dimension : entries[i].shape) size *= dimension;
    absl::StrAppend(&text, nlohmann::json(entries[i].name).dump(), ":{\"dtype\":\"", SafetensorsName(entries[i].dtype),
                    "\",\"shape\":[", absl::StrJoin(entries[i].shape, ","), "],\"data_offsets\":[", data_bytes, ",",
                    data_bytes + size, "]},");
    data_bytes += size;
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  for (uint64_t length = text.size(), i = 0; i < kLengthBytes; ++i, length >>= 8) {
    plan.prefix.push_back(static_cast<char>(length & 0xff));
  }
  plan.prefix += text;
  plan.size_bytes = static_cast<int64_t>(plan.prefix.size()) + data_bytes;
  return plan;
}

}  // namespace shoestring
