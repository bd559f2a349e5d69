// Chunks, the encoding of a document, and the workers that make parts.
#include "data/prepare_encode.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/rng.h"
#include "base/status_macros.h"
#include "base/threads.h"
#include "data/fim.h"

namespace shoestring {
namespace {

std::string HashOf(const TextChunk& chunk) {
  std::string lengths;  // so that the same bytes cut otherwise have another hash
  std::string joined;
  for (const ChunkDocument& document : chunk.documents) {
    absl::StrAppend(&lengths, document.text.size(), " ");
    joined += document.text;
  }
  return ChecksumHex(absl::StrCat(chunk.first_document, ":", lengths, ChecksumHex(joined)));
}

absl::Status AppendEncoded(const TokenEncoder& encoder, absl::string_view text, std::vector<int32_t>* tokens) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, encoder.encode(text));
  tokens->insert(tokens->end(), ids.begin(), ids.end());
  return absl::OkStatus();
}

struct MadePart {
  std::string text_hash;
  bool reused = false;  // a valid part of the same plan and text was there already
};

void Note(const MadePart& made, int64_t chunk, EncodeOutcome& outcome) {
  if (static_cast<int64_t>(outcome.text_hashes.size()) <= chunk) outcome.text_hashes.resize(chunk + 1);
  outcome.text_hashes[chunk] = made.text_hash;
  outcome.chunks_reused += made.reused ? 1 : 0;
}

// What makes a part from a chunk; shared by all workers.
struct PartMaker {
  FileSystem& fs;
  const TokenEncoder& encoder;
  const PrepareOptions& options;
  const std::string& plan;
  const std::string& parts_directory;

  absl::StatusOr<MadePart> Make(const TextChunk& chunk) const {
    const std::string path = PartPath(parts_directory, chunk.index);
    const PartKey key = {plan, HashOf(chunk)};
    const auto existing = PartReader::Open(fs, path);
    if (existing.ok() && (*existing)->key() == key) return MadePart{key.text_hash, true};
    if (!existing.ok() && !absl::IsNotFound(existing.status()) && !absl::IsDataLoss(existing.status())) {
      return existing.status();
    }
    EncodedPart part;
    for (size_t i = 0; i < chunk.documents.size(); ++i) {
      PartDocument record;
      const auto tokens = EncodeDocument(encoder, options, chunk.documents[i].text,
                                         chunk.first_document + static_cast<int64_t>(i), &record);
      if (!tokens.ok()) return WithContext(tokens.status(), chunk.documents[i].origin);
      part.documents.push_back(record);
      part.tokens.insert(part.tokens.end(), tokens->begin(), tokens->end());
    }
    RETURN_IF_ERROR(WritePart(fs, path, key, part));
    return MadePart{key.text_hash, false};
  }
};

// Encodes chunks on threads; holds at most two chunks a thread. The error of the earliest chunk wins, whatever finished
// first.
class Workers {
 public:
  Workers(const PartMaker& maker, int threads) : maker_(maker), capacity_(2 * static_cast<size_t>(threads)) {
    threads_ = StartThreads(threads, [this](int) { Work(); });
  }
  ~Workers() { Join(); }

  bool none() const { return threads_.empty(); }

  // Blocks while the queue is full. False when a chunk has failed: Finish() says which was the earliest.
  bool Push(TextChunk chunk) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return queue_.size() < capacity_ || !first_error_.ok(); });
    if (!first_error_.ok()) return false;
    queue_.push_back(std::move(chunk));
    changed_.notify_all();
    return true;
  }
  // Waits for all chunks.
  absl::StatusOr<EncodeOutcome> Finish() {
    Join();
    RETURN_IF_ERROR(first_error_);
    return std::move(made_);
  }
  int64_t reused() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return made_.chunks_reused;
  }

 private:
  void Join() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  void Work() {
    while (true) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return !queue_.empty() || closed_; });
      if (queue_.empty()) return;
      const TextChunk chunk = std::move(queue_.front());
      queue_.pop_front();
      const bool skip = !first_error_.ok();
      lock.unlock();
      changed_.notify_all();
      if (skip) continue;
      const absl::StatusOr<MadePart> made = maker_.Make(chunk);
      lock.lock();
      if (made.ok()) {
        Note(*made, chunk.index, made_);
      } else if (first_error_.ok() || chunk.index < failed_chunk_) {
        first_error_ = made.status();
        failed_chunk_ = chunk.index;
      }
      changed_.notify_all();
    }
  }

  const PartMaker& maker_;
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<TextChunk> queue_;
  bool closed_ = false;
  EncodeOutcome made_;
  absl::Status first_error_;
  int64_t failed_chunk_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace

absl::StatusOr<bool> ChunkReader::Next(TextChunk* chunk) {
  chunk->index = next_chunk_;
  chunk->first_document = next_document_;
  chunk->documents.clear();
  int64_t bytes = 0;
  Document document;
  while (bytes < options_.chunk_bytes) {
    if (reader_ == nullptr) {
      if (next_input_ == options_.inputs.size()) break;
      ASSIGN_OR_RETURN(reader_, OpenDocuments(fs_, options_.inputs[next_input_++], options_.reader));
    }
    ASSIGN_OR_RETURN(const bool more, reader_->Next(&document));
    if (!more) {
      reader_.reset();
    } else if (document.text.empty()) {
      ++empty_documents_;
    } else {
      bytes += static_cast<int64_t>(document.text.size());
      chunk->documents.push_back(
          {std::move(document.text), absl::StrCat(options_.inputs[next_input_ - 1], ":", document.line)});
      document.text.clear();
    }
  }
  next_document_ += static_cast<int64_t>(chunk->documents.size());
  ++next_chunk_;
  return !chunk->documents.empty();
}

bool IsHeldOut(const PrepareOptions& options, int64_t document_id) {
  return Rng(options.seed, RngPurpose::kHoldOut, static_cast<uint64_t>(document_id)).Uniform(0) <
         options.validation_fraction;
}

absl::StatusOr<std::vector<int32_t>> EncodeDocument(const TokenEncoder& encoder, const PrepareOptions& options,
                                                    absl::string_view text, int64_t document_id, PartDocument* record) {
  record->text_bytes = static_cast<int64_t>(text.size());
  record->held_out = IsHeldOut(options, document_id);
  std::vector<int32_t> tokens;
  FimSplit fim;
  if (!record->held_out) fim = SplitForFim(text, options.seed, document_id, options.fim_rate);
  record->fim = fim.applied;
  if (fim.applied) {
    tokens.push_back(encoder.fim_begin);
    RETURN_IF_ERROR(AppendEncoded(encoder, fim.prefix, &tokens));
    tokens.push_back(encoder.fim_hole);
    RETURN_IF_ERROR(AppendEncoded(encoder, fim.suffix, &tokens));
    tokens.push_back(encoder.fim_end);
    RETURN_IF_ERROR(AppendEncoded(encoder, fim.middle, &tokens));
  } else {
    RETURN_IF_ERROR(AppendEncoded(encoder, text, &tokens));
  }
  if (!record->held_out && options.token_split_rate > 0) {
    const Rng rng(options.seed, RngPurpose::kTokenSplit, static_cast<uint64_t>(document_id));
    tokens = encoder.split_merged(tokens, options.token_split_rate, rng);
  }
  tokens.push_back(encoder.eos);
  record->tokens = static_cast<int32_t>(tokens.size());
  return tokens;
}

std::string PartPath(absl::string_view parts_directory, int64_t chunk) {
  return JoinPath(parts_directory, absl::StrFormat("part_%08d", chunk));
}

absl::StatusOr<EncodeOutcome> EncodeChunks(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options,
                                           const std::string& plan, const std::string& parts_directory,
                                           const DocumentSink& sink, const PrepareCallback& progress) {
  const PartMaker maker = {fs, encoder, options, plan, parts_directory};
  std::unique_ptr<Workers> workers;
  if (options.threads > 1) workers = std::make_unique<Workers>(maker, options.threads);
  if (workers != nullptr && workers->none()) workers.reset();  // the system gives no thread but this one
  ChunkReader reader(fs, options);
  EncodeOutcome outcome;
  PrepareProgress so_far;
  TextChunk chunk;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(&chunk));
    if (!more) break;
    for (size_t i = 0; i < chunk.documents.size(); ++i) {
      RETURN_IF_ERROR(sink(chunk.first_document + static_cast<int64_t>(i), chunk.documents[i].text));
      so_far.text_bytes += static_cast<int64_t>(chunk.documents[i].text.size());
    }
    so_far.documents += static_cast<int64_t>(chunk.documents.size());
    ++so_far.chunks;
    if (workers != nullptr) {
      if (!workers->Push(std::move(chunk))) return workers->Finish().status();
      so_far.chunks_reused = workers->reused();
    } else {
      ASSIGN_OR_RETURN(const MadePart made, maker.Make(chunk));
      Note(made, chunk.index, outcome);
      so_far.chunks_reused = outcome.chunks_reused;
    }
    if (progress) progress(so_far);
  }
  if (workers != nullptr) {
    ASSIGN_OR_RETURN(outcome, workers->Finish());
  }
  outcome.empty_documents = reader.empty_documents();
  return outcome;
}

}  // namespace shoestring
