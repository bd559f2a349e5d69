// Walks through the parts once; best-fit packing looks at a window of them at a time.
#include "data/prepare_assemble.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "data/packing.h"
#include "data/part_file.h"
#include "data/prepare_encode.h"
#include "data/shard_writer.h"

namespace shoestring {
namespace {

// Collects the pieces of a window of parts and writes them as packed sequences.
class BestFitWindow {
 public:
  BestFitWindow(int64_t sequence_length, ShardWriter& writer)
      : capacity_(static_cast<int32_t>(sequence_length + 1)), writer_(writer), sequence_(capacity_) {}

  void AddPart(std::shared_ptr<const PartReader> part) { parts_.push_back(std::move(part)); }
  // A document of the part added last. Returns how many pieces it became.
  int64_t AddDocument(int64_t first_token, int64_t tokens) {
    const auto part = static_cast<int32_t>(parts_.size()) - 1;
    tokens_ += tokens;
    int64_t pieces = 0;
    for (int64_t done = 0; done < tokens; done += capacity_, ++pieces) {
      lengths_.push_back(static_cast<int32_t>(std::min<int64_t>(capacity_, tokens - done)));
      places_.push_back({first_token + done, part});
    }
    return pieces;
  }
  int64_t tokens() const { return tokens_; }

  absl::Status Write() {
    const PackedBins packed = PackBestFit(lengths_, capacity_);
    int64_t next = 0;
    for (const int64_t end : packed.bin_ends) {
      int32_t filled = 0;
      for (; next < end; ++next) {
        const auto piece = static_cast<size_t>(packed.pieces[static_cast<size_t>(next)]);
        const Place& place = places_[piece];
        parts_[static_cast<size_t>(place.part)]->Read(place.first_token, lengths_[piece], sequence_.data() + filled);
        filled += lengths_[piece];
      }
      RETURN_IF_ERROR(writer_.AddSequence(absl::MakeConstSpan(sequence_.data(), static_cast<size_t>(filled))));
      writer_.EndDocument();
    }
    parts_.clear();
    lengths_.clear();
    places_.clear();
    tokens_ = 0;
    return absl::OkStatus();
  }

 private:
  struct Place {
    int64_t first_token;
    int32_t part;
  };

  int32_t capacity_;
  ShardWriter& writer_;
  std::vector<int32_t> sequence_;
  std::vector<std::shared_ptr<const PartReader>> parts_;
  std::vector<int32_t> lengths_;
  std::vector<Place> places_;
  int64_t tokens_ = 0;
};

// One side of the split and what has gone into it.
struct Side {
  std::unique_ptr<ShardWriter> writer;  // null: nothing goes there
  int64_t documents = 0;
  int64_t text_bytes = 0;

  absl::Status AddWhole(absl::Span<const int32_t> tokens) {
    RETURN_IF_ERROR(writer->AddSequence(tokens));
    writer->EndDocument();
    return absl::OkStatus();
  }
  void Count(const PartDocument& document) {
    ++documents;
    text_bytes += document.text_bytes;
  }
};

class Assembler {
 public:
  Assembler(const PrepareOptions& options, int32_t eos, Side train, Side validation)
      : options_(options), eos_(eos), train_(std::move(train)), validation_(std::move(validation)) {
    if (options.packing == Packing::kBestFit) {
      window_ = std::make_unique<BestFitWindow>(options.sequence_length, *train_.writer);
    }
  }

  absl::Status AddPart(std::shared_ptr<const PartReader> part) {
    if (window_ != nullptr) window_->AddPart(part);
    int64_t first_token = 0;
    for (const PartDocument& document : part->documents()) {
      RETURN_IF_ERROR(AddDocument(*part, document, first_token));
      first_token += document.tokens;
    }
    if (window_ != nullptr && window_->tokens() >= options_.window_tokens) return window_->Write();
    return absl::OkStatus();
  }

  absl::StatusOr<AssembleOutcome> Finish(const std::function<absl::Status()>& commit_texts) {
    RETURN_IF_ERROR(Seal());
    // The first to go and the last to come: a training shard that stands means that all stands.
    RETURN_IF_ERROR(train_.writer->RemoveOldMeta());
    RETURN_IF_ERROR(commit_texts());
    if (validation_.writer != nullptr) {
      ASSIGN_OR_RETURN(outcome_.validation, validation_.writer->Finish(validation_.documents, validation_.text_bytes));
    }
    ASSIGN_OR_RETURN(outcome_.train, train_.writer->Finish(train_.documents, train_.text_bytes));
    return outcome_;
  }

 private:
  // All that the inputs or a full disk can forbid, before anything that stands is touched.
  absl::Status Seal() {
    if (window_ != nullptr) RETURN_IF_ERROR(window_->Write());
    if (train_.writer->tokens() == 0) return absl::DataLossError("the inputs hold no training document; add text");
    if (validation_.writer != nullptr) {
      if (validation_.writer->tokens() == 0) {
        return absl::DataLossError("no document was held out for validation; raise its share or add text");
      }
      RETURN_IF_ERROR(validation_.writer->Seal());
    }
    return train_.writer->Seal();
  }

  absl::Status AddDocument(const PartReader& part, const PartDocument& document, int64_t first_token) {
    outcome_.fim_documents += document.fim ? 1 : 0;
    Side& side = document.held_out ? validation_ : train_;
    CHECK(side.writer != nullptr);
    // The first token of the validation text needs something before it to be a target.
    const bool needs_start = document.held_out && side.documents == 0;
    side.Count(document);
    if (!document.held_out && window_ != nullptr) {
      outcome_.cut_documents += window_->AddDocument(first_token, document.tokens) > 1 ? 1 : 0;
      return absl::OkStatus();
    }
    scratch_.assign(needs_start ? 1 : 0, eos_);
    const size_t start = scratch_.size();
    scratch_.resize(start + static_cast<size_t>(document.tokens));
    part.Read(first_token, document.tokens, scratch_.data() + start);
    return side.AddWhole(scratch_);
  }

  const PrepareOptions& options_;
  int32_t eos_;
  Side train_, validation_;
  std::unique_ptr<BestFitWindow> window_;
  std::vector<int32_t> scratch_;
  AssembleOutcome outcome_;
};

// Parts are checked again because they lay on a disk that others may write to.
absl::StatusOr<std::unique_ptr<PartReader>> OpenPart(FileSystem& fs, const std::string& path, const PartKey& key) {
  ASSIGN_OR_RETURN(std::unique_ptr<PartReader> part, PartReader::Open(fs, path));
  if (part->key() == key) return part;
  return absl::DataLossError(absl::StrCat(path,
                                          ": was replaced by a part of other text or settings while the shards "
                                          "were made; prepare again, and let nobody else write there"));
}

}  // namespace

absl::StatusOr<AssembleOutcome> AssembleShards(FileSystem& fs, const PrepareOptions& options, const ShardMeta& train,
                                               const ShardMeta& validation, const std::string& parts_directory,
                                               const std::vector<std::string>& text_hashes,
                                               const std::function<absl::Status()>& commit_texts,
                                               const PrepareCallback& progress) {
  const auto parts = static_cast<int64_t>(text_hashes.size());
  Side train_side, validation_side;
  ASSIGN_OR_RETURN(train_side.writer, ShardWriter::Create(fs, options.train_prefix, train));
  if (options.validation_fraction > 0) {
    ASSIGN_OR_RETURN(validation_side.writer, ShardWriter::Create(fs, options.validation_prefix, validation));
  }
  Assembler assembler(options, train.eos_id, std::move(train_side), std::move(validation_side));
  PrepareProgress so_far;
  so_far.stage = PrepareStage::kPack;
  so_far.chunks_total = parts;
  for (int64_t index = 0; index < parts; ++index) {
    ASSIGN_OR_RETURN(std::shared_ptr<const PartReader> part,
                     OpenPart(fs, PartPath(parts_directory, index), {train.plan, text_hashes[index]}));
    so_far.chunks = index + 1;
    so_far.documents += static_cast<int64_t>(part->documents().size());
    RETURN_IF_ERROR(assembler.AddPart(std::move(part)));
    if (progress) progress(so_far);
  }
  return assembler.Finish(commit_texts);
}

}  // namespace shoestring
