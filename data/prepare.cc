// The plan of a preparation, the two halves of the work, and what is reused.
#include "data/prepare.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "data/output_file.h"
#include "data/prepare_assemble.h"
#include "data/prepare_encode.h"
#include "data/shard.h"

namespace shoestring {
namespace {

constexpr int64_t kSampledBytes = int64_t{1} << 20;

bool IsShare(double value) { return value >= 0.0 && value <= 1.0; }  // false for NaN

// Size and hash of the first and last MiB: enough to see that a file was replaced, without reading all of it.
absl::StatusOr<std::string> InputIdentity(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, fs.OpenForRead(path));
  const int64_t size = file->size_bytes();
  const int64_t sampled = std::min(size, kSampledBytes);
  std::string head(static_cast<size_t>(sampled), '\0'), tail = head;
  RETURN_IF_ERROR(file->ReadAt(0, sampled, head.data()));
  RETURN_IF_ERROR(file->ReadAt(size - sampled, sampled, tail.data()));
  return absl::StrCat(path, " ", size, " ", ChecksumHex(head), " ", ChecksumHex(tail));
}

absl::StatusOr<ShardMeta> DescribeTrain(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options,
                                        const std::string& plan) {
  ShardMeta meta;
  meta.tokenizer_fingerprint = encoder.fingerprint;
  meta.vocab_size = encoder.vocab_size;
  meta.eos_id = encoder.eos;
  meta.packing = options.packing;
  meta.sequence_length = options.packing == Packing::kBestFit ? options.sequence_length : 0;
  meta.plan = plan;
  meta.settings = {options.seed, options.fim_rate, options.token_split_rate, options.validation_fraction, "train"};
  for (const std::string& input : options.inputs) {
    ASSIGN_OR_RETURN(const FileInfo info, fs.Stat(input));
    meta.sources.push_back({CanonicalPath(input), info.size_bytes});  // to be found again from any directory
  }
  return meta;
}

// Held-out documents are plain text, back to back.
ShardMeta DescribeValidation(ShardMeta train) {
  train.packing = Packing::kConcatenate;
  train.sequence_length = 0;
  train.settings.fim_rate = 0.0;
  train.settings.token_split_rate = 0.0;
  train.settings.role = "validation";
  return train;
}

bool TextStands(FileSystem& fs, const std::string& path, int64_t text_bytes) {
  if (path.empty()) return true;
  const auto info = fs.Stat(path);
  return info.ok() && info->size_bytes == text_bytes;
}

// The description of a whole shard of this plan under `prefix`; nothing if there is none.
std::optional<ShardMeta> StandingShard(FileSystem& fs, const std::string& prefix, const std::string& plan) {
  const auto reader = ShardReader::Open(fs, prefix, ShardOpenOptions{});
  if (!reader.ok() || (*reader)->meta().plan != plan) return std::nullopt;
  return (*reader)->meta();
}

std::optional<PrepareSummary> FindFinished(FileSystem& fs, const PrepareOptions& options, const std::string& plan) {
  PrepareSummary summary;
  summary.already_there = true;
  const auto train = StandingShard(fs, options.train_prefix, plan);
  if (!train.has_value() || !TextStands(fs, options.train_text_path, train->text_bytes)) return std::nullopt;
  summary.train = *train;
  if (options.validation_fraction > 0) {
    const auto validation = StandingShard(fs, options.validation_prefix, plan);
    if (!validation.has_value()) return std::nullopt;
    if (!TextStands(fs, options.validation_text_path, validation->text_bytes)) return std::nullopt;
    summary.validation = *validation;
  }
  return summary;
}

// A shard that is not of this plan and not the remains of this preparation belongs to somebody.
absl::Status CheckNothingToLose(FileSystem& fs, const PrepareOptions& options, const std::string& prefix,
                                const std::string& plan) {
  if (options.overwrite) return absl::OkStatus();
  const auto meta = ReadShardMeta(fs, prefix);
  const bool ours = meta.ok() && meta->plan == plan;
  const bool foreign =
      Exists(fs, MetaPath(prefix)) || (Exists(fs, BinPath(prefix)) && !Exists(fs, PartsDirectory(options)));
  if (ours || !foreign) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      prefix, ": a shard of other settings or inputs stands there; choose another prefix, or say --overwrite"));
}

// Parts of this plan are the remains of this preparation.
bool PartsStand(FileSystem& fs, const PrepareOptions& options, const std::string& plan) {
  const auto part = PartReader::Open(fs, PartPath(PartsDirectory(options), 0));
  return part.ok() && (*part)->key().plan == plan;
}

// A text of the size that its shard has read, or beside parts of this plan, is what this preparation wrote.
absl::Status CheckNoTextToLose(FileSystem& fs, const PrepareOptions& options, const std::string& prefix,
                               const std::string& path, const std::string& plan) {
  if (path.empty() || !Exists(fs, path)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const FileInfo standing, fs.Stat(path));
  if (standing.is_directory || standing.is_special) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is no regular file; name another"));
  }
  if (options.overwrite) return absl::OkStatus();
  const auto meta = ReadShardMeta(fs, prefix);
  const bool shard_stands = meta.ok() && meta->plan == plan;
  if (shard_stands ? TextStands(fs, path, meta->text_bytes) : PartsStand(fs, options, plan)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": a file stands there that this preparation did not write; choose another name, or say --overwrite"));
}

// At the place that was recorded, or moved or copied since: under the same name, with the same size.
bool IsSource(const ShardSource& source, const std::string& input, int64_t input_bytes) {
  return CanonicalPath(source.path) == CanonicalPath(input) ||
         (BaseName(source.path) == BaseName(input) && source.bytes == input_bytes);
}

// Text that was held out must not be trained on later, as it would be if only the training shard were made anew.
absl::Status CheckNothingUnheld(FileSystem& fs, const PrepareOptions& options) {
  if (!options.overwrite || options.validation_fraction > 0 || options.validation_prefix.empty()) {
    return absl::OkStatus();
  }
  const auto meta = ReadShardMeta(fs, options.validation_prefix);
  if (!meta.ok() || meta->settings.role != "validation") return absl::OkStatus();
  for (const std::string& input : options.inputs) {
    ASSIGN_OR_RETURN(const FileInfo info, fs.Stat(input));
    for (const ShardSource& source : meta->sources) {
      if (!IsSource(source, input, info.size_bytes)) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          options.validation_prefix, ": was held out of ", input, ", and training would now read all of that; say ",
          "--validation-fraction, or remove ", MetaPath(options.validation_prefix), ", .bin and .idx first"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOutputs(FileSystem& fs, const PrepareOptions& options, const std::string& plan) {
  RETURN_IF_ERROR(CheckNothingToLose(fs, options, options.train_prefix, plan));
  RETURN_IF_ERROR(CheckNoTextToLose(fs, options, options.train_prefix, options.train_text_path, plan));
  if (options.validation_fraction == 0) return CheckNothingUnheld(fs, options);
  RETURN_IF_ERROR(CheckNoTextToLose(fs, options, options.validation_prefix, options.validation_text_path, plan));
  return CheckNothingToLose(fs, options, options.validation_prefix, plan);
}

// The raw text of both sides, written as the documents pass by.
class TextExport {
 public:
  static absl::StatusOr<TextExport> Create(FileSystem& fs, const PrepareOptions& options) {
    TextExport text(options);
    RETURN_IF_ERROR(CreateOne(fs, options.train_text_path, &text.train_));
    RETURN_IF_ERROR(CreateOne(fs, options.validation_text_path, &text.validation_));
    return text;
  }
  absl::Status Add(int64_t document_id, absl::string_view text) {
    OutputFile* file = IsHeldOut(*options_, document_id) ? validation_.get() : train_.get();
    return file == nullptr ? absl::OkStatus() : file->Append(text);
  }
  absl::Status Seal() {
    for (OutputFile* file : {train_.get(), validation_.get()}) {
      if (file != nullptr) RETURN_IF_ERROR(file->Seal());
    }
    return absl::OkStatus();
  }
  absl::Status Commit() {
    for (OutputFile* file : {train_.get(), validation_.get()}) {
      if (file != nullptr) RETURN_IF_ERROR(file->Commit());
    }
    return absl::OkStatus();
  }

 private:
  explicit TextExport(const PrepareOptions& options) : options_(&options) {}
  static absl::Status CreateOne(FileSystem& fs, const std::string& path, std::unique_ptr<OutputFile>* file) {
    if (path.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(CreateDirectoriesDurably(fs, DirName(path)));
    ASSIGN_OR_RETURN(*file, OutputFile::Create(fs, path));
    return absl::OkStatus();
  }

  const PrepareOptions* options_;
  std::unique_ptr<OutputFile> train_, validation_;
};

void AddIf(bool wrong, absl::string_view problem, std::vector<std::string>* problems) {
  if (wrong) problems->emplace_back(problem);
}

// What a shard is, and what stands beside it while it is made.
std::vector<std::string> FilesOfShard(const std::string& prefix) {
  return {BinPath(prefix), IdxPath(prefix), MetaPath(prefix), prefix + ".lock", prefix + ".parts"};
}

// Adds to `places` all that is written for an output, temporary names too; one problem if another output has any.
void ClaimPlaces(const std::string& output, const std::vector<std::string>& files, std::set<std::string>* places,
                 std::vector<std::string>* problems) {
  if (output.empty()) return;
  AddIf(absl::EndsWith(output, "/"), absl::StrCat(output, ": is a folder; name a file or prefix in it"), problems);
  std::string taken;
  for (const std::string& file : files) {
    for (const std::string& name : {file, file + ".tmp"}) {
      if (!places->insert(CanonicalPath(name)).second && taken.empty()) taken = name;
    }
  }
  AddIf(!taken.empty(), absl::StrCat("two outputs have the name ", taken, "; give each a name of its own"), problems);
}

// However a path is spelled, writing there would destroy what another spelling names.
void AddPathProblems(const PrepareOptions& options, std::vector<std::string>* problems) {
  std::set<std::string> places;
  ClaimPlaces(options.train_prefix, FilesOfShard(options.train_prefix), &places, problems);
  if (options.validation_fraction > 0) {
    ClaimPlaces(options.validation_prefix, FilesOfShard(options.validation_prefix), &places, problems);
  }
  ClaimPlaces(options.train_text_path, {options.train_text_path}, &places, problems);
  ClaimPlaces(options.validation_text_path, {options.validation_text_path}, &places, problems);
  for (const std::string& input : options.inputs) {
    AddIf(places.contains(CanonicalPath(input)),
          absl::StrCat("the input ", input, " would be overwritten; name another output"), problems);
  }
}

// Holds the locks of the outputs; the folder for the parts is there.
absl::StatusOr<PrepareSummary> MakeShards(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options,
                                          const std::string& plan, const PrepareCallback& progress) {
  const std::string parts = PartsDirectory(options);
  ASSIGN_OR_RETURN(TextExport text, TextExport::Create(fs, options));
  const auto sink = [&text](int64_t id, absl::string_view document) { return text.Add(id, document); };
  ASSIGN_OR_RETURN(const EncodeOutcome encoded, EncodeChunks(fs, encoder, options, plan, parts, sink, progress));
  RETURN_IF_ERROR(text.Seal());
  ASSIGN_OR_RETURN(const ShardMeta train, DescribeTrain(fs, encoder, options, plan));
  const auto commit_texts = [&text] { return text.Commit(); };
  ASSIGN_OR_RETURN(const AssembleOutcome assembled, AssembleShards(fs, options, train, DescribeValidation(train), parts,
                                                                   encoded.text_hashes, commit_texts, progress));
  RETURN_IF_ERROR(RemoveRecursively(fs, parts));
  PrepareSummary summary;
  summary.train = assembled.train;
  summary.validation = assembled.validation;
  summary.chunks = static_cast<int64_t>(encoded.text_hashes.size());
  summary.chunks_reused = encoded.chunks_reused;
  summary.fim_documents = assembled.fim_documents;
  summary.cut_documents = assembled.cut_documents;
  summary.empty_documents = encoded.empty_documents;
  return summary;
}

}  // namespace

std::string PartsDirectory(const PrepareOptions& options) { return options.train_prefix + ".parts"; }

absl::Status CheckPrepareOptions(const TokenEncoder& encoder, const PrepareOptions& options) {
  std::vector<std::string> problems;
  AddIf(options.inputs.empty(), "no input files", &problems);
  AddIf(options.train_prefix.empty(), "no prefix for the training shard", &problems);
  AddIf(!IsShare(options.validation_fraction) || options.validation_fraction == 1.0,
        "the validation share must be in [0, 1)", &problems);
  AddIf(!IsShare(options.fim_rate), "the fill-in-the-middle rate must be in [0, 1]", &problems);
  AddIf(!IsShare(options.token_split_rate), "the token split rate must be in [0, 1]", &problems);
  AddIf(options.validation_fraction > 0 && options.validation_prefix.empty(),
        "documents are held out, but the validation shard has no prefix", &problems);
  AddIf(options.validation_fraction == 0 && !options.validation_text_path.empty(),
        "a validation text is asked for, but no documents are held out", &problems);
  AddIf(options.packing == Packing::kBestFit &&
            (options.sequence_length < 1 || options.sequence_length > (int64_t{1} << 30)),
        "best-fit packing needs a sequence length between 1 and 2^30", &problems);
  AddIf(options.threads < 1, "threads must be 1 or more", &problems);
  AddIf(options.chunk_bytes < 1 || options.window_tokens < 1, "chunk and window must be 1 or more", &problems);
  AddIf(options.reader.max_document_bytes < 1 || options.reader.max_document_bytes > (int64_t{1} << 29),
        "the limit of a document must be between 1 and 2^29 bytes", &problems);
  AddIf(encoder.eos < 0, "the tokenizer has no end-of-sentence token", &problems);
  AddIf(options.fim_rate > 0 && (encoder.fim_begin < 0 || encoder.fim_hole < 0 || encoder.fim_end < 0),
        "the tokenizer has no fill-in-the-middle tokens; set the rate to 0 or use another tokenizer", &problems);
  AddPathProblems(options, &problems);
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

absl::StatusOr<std::string> PreparePlan(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options) {
  std::string plan = absl::StrCat("shoestring shard plan 1\n", encoder.fingerprint, " ", encoder.vocab_size, " ",
                                  encoder.eos, " ", encoder.fim_begin, " ", encoder.fim_hole, " ", encoder.fim_end);
  const TextReaderOptions& reader = options.reader;
  absl::StrAppend(&plan, "\nread ", static_cast<int>(reader.split), " ", reader.document_bytes, " ", reader.json_key);
  // Shares as bits: two that print alike may decide differently.
  const double shares[] = {options.validation_fraction, options.fim_rate, options.token_split_rate};
  absl::StrAppend(&plan, "\nshares ",
                  ChecksumHex(absl::string_view(reinterpret_cast<const char*>(shares), sizeof(shares))), "\nseed ",
                  options.seed, "\npack ", PackingName(options.packing), " ", options.sequence_length, " ",
                  options.chunk_bytes, " ", options.window_tokens);
  for (const std::string& input : options.inputs) {
    ASSIGN_OR_RETURN(const std::string identity, InputIdentity(fs, input));
    absl::StrAppend(&plan, "\ninput ", identity);
  }
  return ChecksumHex(plan);
}

absl::StatusOr<PrepareSummary> Prepare(FileSystem& fs, const TokenEncoder& encoder, const PrepareOptions& options,
                                       const PrepareCallback& progress) {
  RETURN_IF_ERROR(CheckPrepareOptions(encoder, options));
  ASSIGN_OR_RETURN(const std::string plan, PreparePlan(fs, encoder, options));
  const std::string parts = PartsDirectory(options);
  auto finished = FindFinished(fs, options, plan);
  if (finished.has_value() && !Exists(fs, parts)) return *std::move(finished);
  RETURN_IF_ERROR(CheckOutputs(fs, options, plan));
  ASSIGN_OR_RETURN(const std::unique_ptr<FileLock> train_lock, LockOutput(fs, options.train_prefix));
  std::unique_ptr<FileLock> validation_lock;
  if (options.validation_fraction > 0) {
    ASSIGN_OR_RETURN(validation_lock, LockOutput(fs, options.validation_prefix));
  }
  // Another process may have been faster.
  if (finished = FindFinished(fs, options, plan); finished.has_value()) {
    RETURN_IF_ERROR(RemoveRecursively(fs, parts));
    return *std::move(finished);
  }
  RETURN_IF_ERROR(CheckOutputs(fs, options, plan));
  RETURN_IF_ERROR(fs.CreateDirectories(parts));
  absl::StatusOr<PrepareSummary> summary = MakeShards(fs, encoder, options, plan, progress);
  if (!summary.ok()) fs.Remove(parts).IgnoreError();  // succeeds when there is no part that the next call could use
  return summary;
}

}  // namespace shoestring
