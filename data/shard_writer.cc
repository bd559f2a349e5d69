// The shard writer: tokens as they come, index and description at the end.
#include "data/shard_writer.h"

#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "data/shard_format.h"

namespace shoestring {

// Values are copied as they lie in memory.
static_assert(std::endian::native == std::endian::little);

namespace {

constexpr int64_t kSmallVocabulary = 65500;

template <typename T>
absl::string_view BytesOf(const T& value) {
  return absl::string_view(reinterpret_cast<const char*>(&value), sizeof(T));
}

}  // namespace

int TokenBytesFor(int64_t vocab_size) { return vocab_size < kSmallVocabulary ? 2 : 4; }

absl::StatusOr<std::unique_ptr<ShardWriter>> ShardWriter::Create(FileSystem& fs, const std::string& prefix,
                                                                 ShardMeta meta) {
  RETURN_IF_ERROR(CreateDirectoriesDurably(fs, DirName(prefix)));
  ASSIGN_OR_RETURN(std::unique_ptr<OutputFile> bin, OutputFile::Create(fs, BinPath(prefix)));
  return std::unique_ptr<ShardWriter>(new ShardWriter(fs, prefix, std::move(meta), std::move(bin)));
}

ShardWriter::ShardWriter(FileSystem& fs, std::string prefix, ShardMeta meta, std::unique_ptr<OutputFile> bin)
    : fs_(fs),
      prefix_(std::move(prefix)),
      meta_(std::move(meta)),
      token_bytes_(TokenBytesFor(meta_.vocab_size)),
      bin_(std::move(bin)) {
  meta_.tokens = 0;
}

absl::Status ShardWriter::AddSequence(absl::Span<const int32_t> tokens) {
  CHECK(!tokens.empty());
  CHECK_LE(tokens.size(), static_cast<size_t>(std::numeric_limits<int32_t>::max()));
  scratch_.resize(tokens.size() * static_cast<size_t>(token_bytes_));
  char* out = scratch_.data();
  for (const int32_t token : tokens) {
    CHECK_GE(token, 0);
    CHECK_LT(token, meta_.vocab_size);
    std::memcpy(out, &token, static_cast<size_t>(token_bytes_));  // little-endian: the low bytes come first
    out += token_bytes_;
  }
  RETURN_IF_ERROR(bin_->Append(scratch_));
  lengths_.push_back(static_cast<int32_t>(tokens.size()));
  meta_.tokens += static_cast<int64_t>(tokens.size());
  return absl::OkStatus();
}

void ShardWriter::EndDocument() {
  CHECK_LT(document_index_.back(), sequences());
  document_index_.push_back(sequences());
}

absl::StatusOr<std::unique_ptr<OutputFile>> ShardWriter::WriteIndex() const {
  ASSIGN_OR_RETURN(std::unique_ptr<OutputFile> index, OutputFile::Create(fs_, IdxPath(prefix_)));
  const auto type = static_cast<uint8_t>(token_bytes_ == 2 ? TokenType::kU16 : TokenType::kI32);
  const auto sequence_count = static_cast<uint64_t>(lengths_.size());
  const auto document_entries = static_cast<uint64_t>(document_index_.size());
  RETURN_IF_ERROR(index->Append(absl::StrCat(kIndexMagic, BytesOf(kIndexVersion), BytesOf(type),
                                             BytesOf(sequence_count), BytesOf(document_entries))));
  for (const int32_t length : lengths_) RETURN_IF_ERROR(index->Append(BytesOf(length)));
  int64_t offset = 0;
  for (const int32_t length : lengths_) {
    RETURN_IF_ERROR(index->Append(BytesOf(offset)));
    offset += int64_t{length} * token_bytes_;
  }
  CHECK_EQ(offset, bin_->size_bytes());
  for (const int64_t first : document_index_) RETURN_IF_ERROR(index->Append(BytesOf(first)));
  RETURN_IF_ERROR(index->Seal());
  return index;
}

absl::Status ShardWriter::Seal() {
  if (idx_ != nullptr) return absl::OkStatus();
  CHECK_EQ(document_index_.back(), sequences());
  RETURN_IF_ERROR(bin_->Seal());
  ASSIGN_OR_RETURN(idx_, WriteIndex());
  return absl::OkStatus();
}

absl::Status ShardWriter::RemoveOldMeta() {
  if (!Exists(fs_, MetaPath(prefix_))) return absl::OkStatus();
  RETURN_IF_ERROR(fs_.Remove(MetaPath(prefix_)));
  return fs_.SyncDirectory(DirName(prefix_));
}

absl::StatusOr<ShardMeta> ShardWriter::Finish(int64_t documents, int64_t text_bytes) {
  RETURN_IF_ERROR(Seal());
  RETURN_IF_ERROR(RemoveOldMeta());
  RETURN_IF_ERROR(bin_->Commit());
  meta_.bin_checksums = bin_->TakeChecksums();
  RETURN_IF_ERROR(idx_->Commit());
  meta_.idx_checksums = idx_->TakeChecksums();
  meta_.sequences = sequences();
  meta_.documents = documents;
  meta_.text_bytes = text_bytes;
  RETURN_IF_ERROR(WriteFileDurably(fs_, MetaPath(prefix_), PrintShardMeta(meta_)));
  return meta_;
}

}  // namespace shoestring
