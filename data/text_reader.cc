// Document readers for text and for JSON lines over one line reader.
#include "data/text_reader.h"

#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "data/byte_stream.h"
#include "data/utf8.h"

namespace shoestring {
namespace {

// The vectorised test is for the good text, the exact place only for the bad.
absl::Status CheckLine(absl::string_view line, const std::string& path, const LineReader& lines) {
  if (simdjson::validate_utf8(line.data(), line.size())) return absl::OkStatus();
  const size_t at = FindInvalidUtf8(line);
  return absl::DataLossError(
      absl::StrCat(path, ":", lines.line_number(), ": invalid UTF-8 at byte ",
                   lines.line_offset() + static_cast<int64_t>(at), " of the file, byte ", at, " of the line (0x",
                   absl::Hex(static_cast<unsigned char>(line[at]), absl::kZeroPad2), "); convert the file to UTF-8"));
}

bool IsBlank(absl::string_view line) {
  return std::all_of(line.begin(), line.end(), [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; });
}

class PlainTextReader final : public DocumentReader {
 public:
  PlainTextReader(LineReader lines, std::string path, const TextReaderOptions& options)
      : lines_(std::move(lines)), path_(std::move(path)), options_(options) {}

  absl::StatusOr<bool> Next(Document* document) override {
    document->text.swap(next_start_);
    next_start_.clear();
    document->line = next_line_;
    bool blank_seen = false;
    absl::string_view line;
    while (true) {
      ASSIGN_OR_RETURN(const bool more, lines_.Next(&line));
      if (!more) return !document->text.empty();
      RETURN_IF_ERROR(CheckLine(line, path_, lines_));
      if (document->text.empty()) document->line = lines_.line_number();
      if (blank_seen && !IsBlank(line)) {  // blank lines stay with the document before them
        next_start_.assign(line.data(), line.size());
        next_line_ = lines_.line_number();
        return true;
      }
      RETURN_IF_ERROR(Append(line, document));
      const bool large_enough = static_cast<int64_t>(document->text.size()) >= options_.document_bytes;
      if (options_.split == TextSplit::kBytes && large_enough) return true;
      blank_seen = options_.split == TextSplit::kBlankLines && large_enough && (blank_seen || IsBlank(line));
    }
  }

 private:
  absl::Status Append(absl::string_view line, Document* document) const {
    if (static_cast<int64_t>(document->text.size() + line.size()) > options_.max_document_bytes) {
      return absl::DataLossError(absl::StrCat(path_, ":", lines_.line_number(), ": the document that begins at line ",
                                              document->line, " is larger than ", options_.max_document_bytes,
                                              " bytes; cut the file at blank lines or by bytes"));
    }
    document->text.append(line.data(), line.size());
    return absl::OkStatus();
  }

  LineReader lines_;
  std::string path_;
  TextReaderOptions options_;
  std::string next_start_;  // first line of the next document, read to see that this one is over
  int64_t next_line_ = 0;
};

class JsonLinesReader final : public DocumentReader {
 public:
  JsonLinesReader(LineReader lines, std::string path, const TextReaderOptions& options)
      : lines_(std::move(lines)), path_(std::move(path)), options_(options) {}

  absl::StatusOr<bool> Next(Document* document) override {
    absl::string_view line;
    do {
      ASSIGN_OR_RETURN(const bool more, lines_.Next(&line));
      if (!more) return false;
    } while (IsBlank(line));
    RETURN_IF_ERROR(CheckLine(line, path_, lines_));
    document->line = lines_.line_number();
    simdjson::dom::element root;
    // The whole line is parsed, not only the key: half a line must not pass for a document.
    if (const auto error = parser_.parse(line.data(), line.size()).get(root); error != simdjson::SUCCESS) {
      return Bad(absl::StrCat("not a JSON object on one line: ", simdjson::error_message(error)));
    }
    simdjson::dom::object object;
    if (root.get(object) != simdjson::SUCCESS) return Bad("the line is JSON but not an object");
    simdjson::dom::element value;
    if (object.at_key(options_.json_key).get(value) != simdjson::SUCCESS) {
      return Bad(absl::StrCat("the object has no key \"", options_.json_key, "\"; name the key that holds the text"));
    }
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) {
      return Bad(absl::StrCat("the value of \"", options_.json_key, "\" is not a string"));
    }
    document->text.assign(text);
    return true;
  }

 private:
  absl::Status Bad(absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(path_, ":", lines_.line_number(), ": ", what));
  }

  LineReader lines_;
  std::string path_;
  TextReaderOptions options_;
  simdjson::dom::parser parser_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DocumentReader>> OpenDocuments(FileSystem& fs, const std::string& path,
                                                              const TextReaderOptions& options) {
  if (options.split == TextSplit::kBytes && options.document_bytes <= 0) {
    return absl::InvalidArgumentError("documents cut by bytes need a size above 0; set document_bytes");
  }
  const absl::string_view name = WithoutPackingSuffix(path);
  const bool json = absl::EndsWith(name, ".jsonl");
  if (!json && !absl::EndsWith(name, ".txt")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the name must end in .txt or .jsonl, then perhaps .gz or .zst; rename the file"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> stream, OpenByteStream(fs, path));
  LineReader lines(std::move(stream), path, options.max_document_bytes);
  std::unique_ptr<DocumentReader> reader;
  if (json) {
    reader = std::make_unique<JsonLinesReader>(std::move(lines), path, options);
  } else {
    reader = std::make_unique<PlainTextReader>(std::move(lines), path, options);
  }
  return reader;
}

}  // namespace shoestring
