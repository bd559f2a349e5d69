// The shard reader: every field of the index is checked at open, every block of tokens before its first use.
#include "data/shard.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

constexpr absl::string_view kPrepareAgain = "; prepare the data again or copy it again";

// The arrays of the index are not aligned.
template <typename T>
T Load(absl::string_view bytes, int64_t offset) {
  CHECK_LE(offset + static_cast<int64_t>(sizeof(T)), static_cast<int64_t>(bytes.size()));
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

int64_t BytesOfType(uint8_t code) {
  switch (static_cast<TokenType>(code)) {
    case TokenType::kU16:
    case TokenType::kI16: return 2;
    case TokenType::kI32: return 4;
    case TokenType::kI64: return 8;
  }
  return 0;
}

absl::Status HintAtPrefix(const absl::Status& status, absl::string_view path) {
  for (const absl::string_view suffix : {".bin", ".idx", ".meta.json"}) {
    if (!absl::IsNotFound(status) || !absl::ConsumeSuffix(&path, suffix)) continue;
    return absl::NotFoundError(absl::StrCat(status.message(), "; a shard goes by its prefix, ", path));
  }
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardReader>> ShardReader::Open(FileSystem& fs, const std::string& prefix,
                                                               const ShardOpenOptions& options) {
  std::unique_ptr<ShardReader> reader(new ShardReader());
  reader->prefix_ = prefix;
  RETURN_IF_ERROR(reader->OpenFiles(fs, options));
  return reader;
}

absl::Status ShardReader::OpenFiles(FileSystem& fs, const ShardOpenOptions& options) {
  absl::StatusOr<std::unique_ptr<MappedFile>> index = fs.Map(IdxPath(prefix_));
  if (!index.ok()) return HintAtPrefix(index.status(), prefix_);
  idx_ = *std::move(index);
  ASSIGN_OR_RETURN(bin_, fs.Map(BinPath(prefix_)));
  RETURN_IF_ERROR(LoadMeta(fs, options));
  if (!options.tokenizer_fingerprint.empty() && meta_.tokenizer_fingerprint != options.tokenizer_fingerprint) {
    return absl::DataLossError(
        absl::StrCat(MetaPath(prefix_), ": prepared with tokenizer ", meta_.tokenizer_fingerprint, ", the run uses ",
                     options.tokenizer_fingerprint, "; name the tokenizer of the shard or prepare the data again"));
  }
  // The checksums of the index come before its fields, so that damage is called damage.
  if (has_meta_) {
    BlockChecksummer checksums;
    checksums.Update(idx_->contents());
    if (checksums.Finish() != meta_.idx_checksums) return IndexError("its checksum is not that of meta.json");
  }
  RETURN_IF_ERROR(ParseHeader());
  RETURN_IF_ERROR(CheckSequences());
  tokens_ = static_cast<int64_t>(bin_->contents().size()) / token_bytes_;
  RETURN_IF_ERROR(CheckDocuments());
  if (has_meta_) {
    RETURN_IF_ERROR(CheckAgainstMeta());
  } else {
    meta_.sequences = sequences_;
    meta_.documents = index_documents();
    meta_.tokens = tokens_;
  }
  verified_ = std::make_unique<std::atomic<bool>[]>(meta_.bin_checksums.size());
  content_hash_ = ChecksumHex(ContentIdentity());
  return absl::OkStatus();
}

std::string ShardReader::ContentIdentity() const {
  if (!has_meta_) return absl::StrCat(meta_.tokenizer_fingerprint, idx_->contents());
  // What the tokens are, without where they came from.
  return absl::StrCat(meta_.tokenizer_fingerprint, " bin ", absl::StrJoin(meta_.bin_checksums, " "), " idx ",
                      absl::StrJoin(meta_.idx_checksums, " "));
}

absl::Status ShardReader::LoadMeta(FileSystem& fs, const ShardOpenOptions& options) {
  absl::StatusOr<ShardMeta> meta = ReadShardMeta(fs, prefix_);
  has_meta_ = meta.ok();
  if (has_meta_) {
    meta_ = *std::move(meta);
    return absl::OkStatus();
  }
  if (!absl::IsNotFound(meta.status())) return meta.status();
  if (!options.plain.has_value()) {
    return absl::DataLossError(
        absl::StrCat(MetaPath(prefix_),
                     ": absent: the preparation did not finish, or the shard is a plain Megatron one; finish the "
                     "preparation, or give the shard a description with 'shoestring data merge --tokenizer'"));
  }
  meta_.tokenizer_fingerprint = options.plain->tokenizer_fingerprint;
  meta_.vocab_size = options.plain->vocab_size;
  meta_.eos_id = options.plain->eos_id;
  if (meta_.tokenizer_fingerprint.empty() || meta_.vocab_size <= 0 || meta_.vocab_size > kMaxVocabSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("a plain shard needs its tokenizer's fingerprint and vocabulary size, at most ", kMaxVocabSize));
  }
  return absl::OkStatus();
}

absl::Status ShardReader::IndexError(absl::string_view what) const {
  return absl::DataLossError(absl::StrCat(IdxPath(prefix_), ": ", what, kPrepareAgain));
}

absl::Status ShardReader::ParseHeader() {
  const absl::string_view index = idx_->contents();
  if (static_cast<int64_t>(index.size()) < kIndexHeaderBytes) {
    return IndexError(absl::StrCat("has ", index.size(), " bytes, fewer than a header (", kIndexHeaderBytes, ")"));
  }
  if (!absl::StartsWith(index, kIndexMagic)) return IndexError("does not begin with MMIDIDX: not a Megatron index");
  const auto version = Load<uint64_t>(index, 9);
  if (version != kIndexVersion) return IndexError(absl::StrCat("index version ", version, ", only 1 is known"));
  const auto code = Load<uint8_t>(index, 17);
  token_bytes_ = BytesOfType(code);
  if (token_bytes_ == 0) return IndexError(absl::StrCat("token type code ", code, " is not a type of tokens"));
  type_ = static_cast<TokenType>(code);
  const auto sequences = Load<uint64_t>(index, 18);
  const auto entries = Load<uint64_t>(index, 26);
  const auto wanted = static_cast<unsigned __int128>(sequences) * 12 + static_cast<unsigned __int128>(entries) * 8 +
                      static_cast<unsigned>(kIndexHeaderBytes);
  if (entries >= 1 && wanted + sequences == index.size() && sequences > 0) {
    return IndexError("has a mode array: multimodal shards are not supported");
  }
  if (wanted != index.size() || entries < 1) {
    return IndexError(absl::StrCat("has ", index.size(), " bytes, which do not fit ", sequences, " sequences and ",
                                   entries, " document entries"));
  }
  sequences_ = static_cast<int64_t>(sequences);
  document_entries_ = static_cast<int64_t>(entries);
  return absl::OkStatus();
}

int32_t ShardReader::SequenceLength(int64_t sequence) const {
  CHECK_LT(sequence, sequences_);
  return Load<int32_t>(idx_->contents(), kIndexHeaderBytes + sequence * 4);
}

int64_t ShardReader::SequenceStart(int64_t sequence) const {
  CHECK_LT(sequence, sequences_);
  return Load<int64_t>(idx_->contents(), kIndexHeaderBytes + sequences_ * 4 + sequence * 8) / token_bytes_;
}

int64_t ShardReader::DocumentStart(int64_t document) const {
  CHECK_LT(document, document_entries_);
  return Load<int64_t>(idx_->contents(), kIndexHeaderBytes + sequences_ * 12 + document * 8);
}

absl::Status ShardReader::CheckSequences() const {
  const absl::string_view index = idx_->contents();
  const int64_t offsets = kIndexHeaderBytes + sequences_ * 4;
  int64_t expected = 0;
  const auto bin_bytes = static_cast<int64_t>(bin_->contents().size());
  for (int64_t i = 0; i < sequences_; ++i) {
    const auto length = Load<int32_t>(index, kIndexHeaderBytes + i * 4);
    if (length <= 0) return IndexError(absl::StrCat("sequence ", i, " has length ", length));
    const auto offset = Load<int64_t>(index, offsets + i * 8);
    if (offset != expected) {
      return IndexError(
          absl::StrCat("sequence ", i, " begins at byte ", offset, ", not where the one before ends (", expected, ")"));
    }
    expected += length * token_bytes_;
    if (expected > bin_bytes) break;  // also keeps the sum far from overflow
  }
  if (expected != bin_bytes) {
    return absl::DataLossError(
        absl::StrCat(BinPath(prefix_), ": has ", bin_bytes, " bytes, the index describes another size", kPrepareAgain));
  }
  return absl::OkStatus();
}

absl::Status ShardReader::CheckDocuments() const {
  if (DocumentStart(0) != 0) return IndexError("the document index does not begin with 0");
  for (int64_t i = 1; i < document_entries_; ++i) {
    if (DocumentStart(i) < DocumentStart(i - 1)) {
      return IndexError(absl::StrCat("the document index falls at entry ", i));
    }
  }
  if (DocumentStart(document_entries_ - 1) != sequences_) {
    return IndexError(absl::StrCat("the document index ends at ", DocumentStart(document_entries_ - 1), ", not at ",
                                   sequences_, ", the number of sequences"));
  }
  return absl::OkStatus();
}

absl::Status ShardReader::CheckAgainstMeta() const {
  const auto bin_bytes = static_cast<int64_t>(bin_->contents().size());
  const int64_t blocks = (bin_bytes + kChecksumBlockBytes - 1) / kChecksumBlockBytes;
  if (meta_.sequences != sequences_ || meta_.tokens != bin_bytes / token_bytes_ ||
      static_cast<int64_t>(meta_.bin_checksums.size()) != blocks) {
    return absl::DataLossError(absl::StrCat(MetaPath(prefix_), ": describes ", meta_.sequences, " sequences and ",
                                            meta_.tokens, " tokens, the index ", sequences_, " and ",
                                            bin_bytes / token_bytes_, kPrepareAgain));
  }
  return absl::OkStatus();
}

absl::Status ShardReader::VerifyBlock(int64_t block) const {
  if (verified_[block].load(std::memory_order_acquire)) return absl::OkStatus();
  const absl::string_view bytes = bin_->contents().substr(block * kChecksumBlockBytes, kChecksumBlockBytes);
  if (ChecksumHex(bytes) != meta_.bin_checksums[block]) {
    return absl::DataLossError(absl::StrCat(BinPath(prefix_), ": bytes ", block * kChecksumBlockBytes, " to ",
                                            block * kChecksumBlockBytes + static_cast<int64_t>(bytes.size()),
                                            " do not match their checksum", kPrepareAgain));
  }
  verified_[block].store(true, std::memory_order_release);
  return absl::OkStatus();
}

absl::Status ShardReader::VerifyBytes(int64_t first_byte, int64_t count_bytes) const {
  const int64_t last = (first_byte + count_bytes - 1) / kChecksumBlockBytes;
  for (int64_t block = first_byte / kChecksumBlockBytes; block <= last; ++block) RETURN_IF_ERROR(VerifyBlock(block));
  return absl::OkStatus();
}

template <typename Stored>
absl::Status ShardReader::Convert(int64_t first, int64_t count, int32_t* out) const {
  const char* in = bin_->contents().data() + first * static_cast<int64_t>(sizeof(Stored));
  for (int64_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, in + i * static_cast<int64_t>(sizeof(Stored)), sizeof(Stored));
    const auto token = static_cast<int64_t>(value);
    if (token < 0 || token >= meta_.vocab_size) {
      return absl::DataLossError(absl::StrCat(BinPath(prefix_), ": token ", first + i, " is ", token,
                                              ", not an id of a vocabulary of ", meta_.vocab_size, kPrepareAgain));
    }
    out[i] = static_cast<int32_t>(token);
  }
  return absl::OkStatus();
}

absl::Status ShardReader::Read(int64_t first, int64_t count, int32_t* out) const {
  CHECK_GE(first, 0);
  CHECK_GE(count, 0);
  CHECK_LE(first + count, tokens_);
  if (count == 0) return absl::OkStatus();
  if (has_meta_) RETURN_IF_ERROR(VerifyBytes(first * token_bytes_, count * token_bytes_));
  switch (type_) {
    case TokenType::kU16: return Convert<uint16_t>(first, count, out);
    case TokenType::kI16: return Convert<int16_t>(first, count, out);
    case TokenType::kI32: return Convert<int32_t>(first, count, out);
    case TokenType::kI64: return Convert<int64_t>(first, count, out);
  }
  return absl::InternalError("token type changed after it was checked");
}

absl::Status ShardReader::VerifyAll() const {
  if (has_meta_ && tokens_ > 0) RETURN_IF_ERROR(VerifyBytes(0, tokens_ * token_bytes_));
  constexpr int64_t kChunk = int64_t{1} << 16;
  std::vector<int32_t> chunk(kChunk);
  for (int64_t first = 0; first < tokens_; first += kChunk) {
    RETURN_IF_ERROR(Read(first, std::min(kChunk, tokens_ - first), chunk.data()));
  }
  return absl::OkStatus();
}

}  // namespace shoestring
