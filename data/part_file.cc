// Layout: magic, plan, text hash, counts, one record a document, tokens, checksum of all before.
#include "data/part_file.h"

#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "data/shard_meta.h"

namespace shoestring {
namespace {

constexpr absl::string_view kMagic = "SHOEPART";
constexpr size_t kHashDigits = 32;
constexpr size_t kHeaderBytes = 8 + 2 * kHashDigits + 2 * sizeof(int64_t);

struct Record {
  int64_t text_bytes;
  int32_t tokens;
  uint32_t flags;
};
static_assert(sizeof(Record) == 16);
constexpr uint32_t kHeldOut = 1, kFim = 2;

template <typename T>
void AppendRaw(const T* values, size_t count, std::string* out) {
  out->append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

}  // namespace

absl::Status WritePart(FileSystem& fs, const std::string& path, const PartKey& key, const EncodedPart& part) {
  CHECK_EQ(key.plan.size(), kHashDigits);
  CHECK_EQ(key.text_hash.size(), kHashDigits);
  std::string bytes = absl::StrCat(kMagic, key.plan, key.text_hash);
  const int64_t counts[2] = {static_cast<int64_t>(part.documents.size()), static_cast<int64_t>(part.tokens.size())};
  AppendRaw(counts, 2, &bytes);
  for (const PartDocument& document : part.documents) {
    const Record record = {document.text_bytes, document.tokens,
                           (document.held_out ? kHeldOut : 0) | (document.fim ? kFim : 0)};
    AppendRaw(&record, 1, &bytes);
  }
  AppendRaw(part.tokens.data(), part.tokens.size(), &bytes);
  bytes += ChecksumHex(bytes);
  return WriteFileDurably(fs, path, bytes);
}

absl::StatusOr<std::unique_ptr<PartReader>> PartReader::Open(FileSystem& fs, const std::string& path) {
  std::unique_ptr<PartReader> part(new PartReader());
  ASSIGN_OR_RETURN(part->file_, fs.Map(path));
  RETURN_IF_ERROR(WithContext(part->Parse(), path));
  return part;
}

absl::Status PartReader::Parse() {
  const absl::string_view bytes = file_->contents();
  if (bytes.size() < kHeaderBytes + kHashDigits || !absl::StartsWith(bytes, kMagic)) {
    return absl::DataLossError("not a part of a preparation");
  }
  const absl::string_view body = bytes.substr(0, bytes.size() - kHashDigits);
  if (ChecksumHex(body) != bytes.substr(body.size())) return absl::DataLossError("its checksum is wrong");
  key_.plan = std::string(bytes.substr(kMagic.size(), kHashDigits));
  key_.text_hash = std::string(bytes.substr(kMagic.size() + kHashDigits, kHashDigits));
  int64_t counts[2];
  std::memcpy(counts, bytes.data() + kMagic.size() + 2 * kHashDigits, sizeof(counts));
  // The checksum is right, so the counts are ours.
  CHECK_EQ(body.size(), kHeaderBytes + static_cast<size_t>(counts[0]) * sizeof(Record) +
                            static_cast<size_t>(counts[1]) * sizeof(int32_t));
  documents_.resize(static_cast<size_t>(counts[0]));
  for (size_t i = 0; i < documents_.size(); ++i) {
    Record record;
    std::memcpy(&record, bytes.data() + kHeaderBytes + i * sizeof(Record), sizeof(Record));
    documents_[i] = {record.text_bytes, record.tokens, (record.flags & kHeldOut) != 0, (record.flags & kFim) != 0};
  }
  tokens_ = counts[1];
  tokens_offset_ = static_cast<int64_t>(kHeaderBytes + documents_.size() * sizeof(Record));
  return absl::OkStatus();
}

void PartReader::Read(int64_t first, int64_t count, int32_t* out) const {
  CHECK_GE(first, 0);
  CHECK_GE(count, 0);
  CHECK_LE(first + count, tokens_);
  std::memcpy(out, file_->contents().data() + tokens_offset_ + first * static_cast<int64_t>(sizeof(int32_t)),
              static_cast<size_t>(count) * sizeof(int32_t));
}

}  // namespace shoestring
