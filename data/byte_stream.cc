// Plain, gzip and zstd streams, and lines over any of them.
#include "data/byte_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

constexpr int64_t kReadBytes = int64_t{1} << 20;

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(std::unique_ptr<ReadableFile> file) : file_(std::move(file)) {}

  absl::StatusOr<int64_t> Read(char* out, int64_t size_bytes) override {
    const int64_t count = std::min(size_bytes, file_->size_bytes() - offset_);
    if (count <= 0) return 0;
    RETURN_IF_ERROR(file_->ReadAt(offset_, count, out));
    offset_ += count;
    return count;
  }

 private:
  std::unique_ptr<ReadableFile> file_;
  int64_t offset_ = 0;
};

// What both decompressors share: a window of packed input that is refilled when empty.
class PackedInput {
 public:
  PackedInput(std::unique_ptr<ReadableFile> file, std::string path)
      : file_(std::move(file)), path_(std::move(path)), buffer_(kReadBytes, '\0') {}

  absl::Status Refill() {
    if (begin_ < end_) return absl::OkStatus();
    const auto count = file_.Read(buffer_.data(), kReadBytes);
    RETURN_IF_ERROR(count.status());
    begin_ = 0;
    end_ = *count;
    return absl::OkStatus();
  }
  const char* data() const { return buffer_.data() + begin_; }
  int64_t size() const { return end_ - begin_; }
  void Consume(int64_t bytes) {
    begin_ += bytes;
    consumed_ += bytes;
  }
  absl::Status Damaged(absl::string_view what) const {
    return absl::DataLossError(
        absl::StrCat(path_, ": packed byte ", consumed_, ": ", what, "; make the file again or fetch it again"));
  }

 private:
  PlainStream file_;
  std::string path_;
  std::string buffer_;
  int64_t begin_ = 0;
  int64_t end_ = 0;
  int64_t consumed_ = 0;
};

class GzipStream final : public ByteStream {
 public:
  GzipStream(std::unique_ptr<ReadableFile> file, std::string path) : input_(std::move(file), std::move(path)) {
    state_ok_ = inflateInit2(&state_, 15 + 16) == Z_OK;  // 16: gzip framing only
  }
  ~GzipStream() override {
    if (state_ok_) inflateEnd(&state_);
  }

  absl::StatusOr<int64_t> Read(char* out, int64_t size_bytes) override {
    if (!state_ok_) return absl::ResourceExhaustedError("zlib could not be initialised");
    while (true) {
      RETURN_IF_ERROR(input_.Refill());
      if (input_.size() == 0) {
        if (between_members_) return 0;
        return input_.Damaged("the gzip stream ends too early (truncated)");
      }
      if (between_members_ && members_ > 0 && inflateReset(&state_) != Z_OK) return input_.Damaged("zlib reset failed");
      between_members_ = false;
      const auto produced = Inflate(out, size_bytes);
      if (!produced.ok() || *produced > 0) return produced;
    }
  }

 private:
  absl::StatusOr<int64_t> Inflate(char* out, int64_t size_bytes) {
    const int64_t room = std::min(size_bytes, kReadBytes);
    state_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input_.data()));
    state_.avail_in = static_cast<uInt>(input_.size());
    state_.next_out = reinterpret_cast<Bytef*>(out);
    state_.avail_out = static_cast<uInt>(room);
    const int result = inflate(&state_, Z_NO_FLUSH);
    input_.Consume(input_.size() - static_cast<int64_t>(state_.avail_in));
    if (result == Z_STREAM_END) {
      between_members_ = true;
      ++members_;
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      return input_.Damaged(absl::StrCat("damaged gzip data", state_.msg != nullptr ? ": " : "",
                                         state_.msg != nullptr ? state_.msg : ""));
    }
    return room - static_cast<int64_t>(state_.avail_out);
  }

  PackedInput input_;
  z_stream state_ = {};
  bool state_ok_ = false;
  bool between_members_ = false;  // a file without a single member is truncated, not empty
  int64_t members_ = 0;
};

class ZstdStream final : public ByteStream {
 public:
  ZstdStream(std::unique_ptr<ReadableFile> file, std::string path)
      : input_(std::move(file), std::move(path)), state_(ZSTD_createDCtx()) {
    if (state_ != nullptr) ZSTD_DCtx_setParameter(state_, ZSTD_d_windowLogMax, 31);  // as `zstd --long=31` writes
  }
  ~ZstdStream() override { ZSTD_freeDCtx(state_); }

  absl::StatusOr<int64_t> Read(char* out, int64_t size_bytes) override {
    if (state_ == nullptr) return absl::ResourceExhaustedError("zstd could not be initialised");
    while (true) {
      RETURN_IF_ERROR(input_.Refill());
      if (input_.size() == 0 && frame_done_) return 0;
      ZSTD_inBuffer in = {input_.data(), static_cast<size_t>(input_.size()), 0};
      ZSTD_outBuffer target = {out, static_cast<size_t>(size_bytes), 0};
      const size_t hint = ZSTD_decompressStream(state_, &target, &in);
      const bool starved = input_.size() == 0;
      input_.Consume(static_cast<int64_t>(in.pos));
      if (ZSTD_isError(hint)) return input_.Damaged(absl::StrCat("damaged zstd data: ", ZSTD_getErrorName(hint)));
      frame_done_ = hint == 0;
      if (target.pos > 0) return static_cast<int64_t>(target.pos);
      if (starved && !frame_done_) return input_.Damaged("the zstd stream ends too early (truncated)");
    }
  }

 private:
  PackedInput input_;
  ZSTD_DCtx* state_;
  bool frame_done_ = false;
};

bool IsGzip(absl::string_view path) { return absl::EndsWith(path, ".gz") || absl::EndsWith(path, ".dz"); }
bool IsZstd(absl::string_view path) { return absl::EndsWith(path, ".zst"); }

}  // namespace

absl::StatusOr<std::unique_ptr<ByteStream>> OpenByteStream(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, fs.OpenForRead(path));
  std::unique_ptr<ByteStream> stream;
  if (IsGzip(path)) {
    stream = std::make_unique<GzipStream>(std::move(file), path);
  } else if (IsZstd(path)) {
    stream = std::make_unique<ZstdStream>(std::move(file), path);
  } else {
    stream = std::make_unique<PlainStream>(std::move(file));
  }
  return stream;
}

absl::string_view WithoutPackingSuffix(absl::string_view path) {
  if (IsGzip(path)) return path.substr(0, path.size() - 3);
  return absl::StripSuffix(path, ".zst");
}

LineReader::LineReader(std::unique_ptr<ByteStream> stream, std::string path, int64_t max_line_bytes)
    : stream_(std::move(stream)), path_(std::move(path)), max_line_bytes_(max_line_bytes) {}

absl::Status LineReader::ReadMore() {
  buffer_.erase(0, begin_);
  buffer_offset_ += static_cast<int64_t>(begin_);
  scanned_ = buffer_.size();
  begin_ = 0;
  buffer_.resize(scanned_ + kReadBytes);
  const auto count = stream_->Read(buffer_.data() + scanned_, kReadBytes);
  buffer_.resize(scanned_ + static_cast<size_t>(count.ok() ? *count : 0));
  at_end_ = count.ok() && *count == 0;
  return count.status();
}

absl::StatusOr<bool> LineReader::Next(absl::string_view* line) {
  size_t end = std::string::npos;
  while (true) {
    if (!started_ && (at_end_ || buffer_.size() >= 3)) {
      started_ = true;
      begin_ = scanned_ = absl::StartsWith(buffer_, "\xEF\xBB\xBF") ? 3 : 0;
    }
    end = started_ ? buffer_.find('\n', std::max(scanned_, begin_)) : std::string::npos;
    if (end != std::string::npos || at_end_) break;
    if (static_cast<int64_t>(buffer_.size() - begin_) > max_line_bytes_) {
      return absl::DataLossError(absl::StrCat(path_, ":", line_number_ + 1, ": the line is longer than ",
                                              max_line_bytes_, " bytes; cut it or raise the limit"));
    }
    RETURN_IF_ERROR(ReadMore());
  }
  const size_t stop = end == std::string::npos ? buffer_.size() : end + 1;
  if (stop == begin_) return false;
  *line = absl::string_view(buffer_).substr(begin_, stop - begin_);
  line_offset_ = buffer_offset_ + static_cast<int64_t>(begin_);
  ++line_number_;
  begin_ = scanned_ = stop;
  return true;
}

}  // namespace shoestring
