// Streams the inputs through a shard writer.
#include "data/merge.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/output_file.h"
#include "data/shard_writer.h"

namespace shoestring {
namespace {

using Shards = std::vector<std::unique_ptr<ShardReader>>;

absl::Status CheckOptions(const MergeOptions& options) {
  if (options.inputs.empty()) return absl::InvalidArgumentError("no shards to merge");
  if (options.output.empty()) return absl::InvalidArgumentError("the merged shard has no prefix");
  for (const std::string& input : options.inputs) {
    if (CanonicalPath(input) != CanonicalPath(options.output)) continue;
    return absl::InvalidArgumentError(absl::StrCat(input, ": is both input and output; name another output"));
  }
  if (absl::EndsWith(options.output, "/")) {
    return absl::InvalidArgumentError(absl::StrCat(options.output, ": is a folder; name a prefix in it"));
  }
  return absl::OkStatus();
}

absl::Status CheckNothingToLose(FileSystem& fs, const MergeOptions& options) {
  if (options.overwrite) return absl::OkStatus();
  for (const std::string& path : {MetaPath(options.output), BinPath(options.output), IdxPath(options.output)}) {
    if (!Exists(fs, path)) continue;
    return absl::FailedPreconditionError(absl::StrCat(path, ": exists; choose another prefix, or say --overwrite"));
  }
  return absl::OkStatus();
}

absl::Status CheckAgree(const Shards& shards) {
  const ShardMeta& first = shards.front()->meta();
  for (const auto& shard : shards) {
    const ShardMeta& meta = shard->meta();
    const auto differ = [&](absl::string_view what) {
      return absl::DataLossError(absl::StrCat(shard->prefix(), ": has another ", what, " than ",
                                              shards.front()->prefix(), "; merge only shards prepared alike"));
    };
    if (meta.tokenizer_fingerprint != first.tokenizer_fingerprint) return differ("tokenizer");
    if (meta.vocab_size != first.vocab_size) return differ("vocabulary size");
    if (meta.eos_id != first.eos_id) return differ("eos id");
    if (meta.packing != first.packing) return differ("packing");
    if (meta.sequence_length != first.sequence_length) return differ("sequence length");
    if (meta.settings.fim_rate != first.settings.fim_rate) return differ("fill-in-the-middle rate");
    if (meta.settings.token_split_rate != first.settings.token_split_rate) return differ("token split rate");
    if (meta.settings.role != first.settings.role) return differ("role");
  }
  return absl::OkStatus();
}

struct Totals {
  int64_t tokens = 0, sequences = 0, index_documents = 0, documents = 0, text_bytes = 0;
};

Totals SumUp(const Shards& shards) {
  Totals totals;
  bool bytes_known = true;
  for (const auto& shard : shards) {
    totals.tokens += shard->tokens();
    totals.sequences += shard->sequences();
    totals.index_documents += shard->index_documents();
    totals.documents += shard->meta().documents;
    totals.text_bytes += shard->meta().text_bytes;
    bytes_known = bytes_known && shard->meta().text_bytes > 0;
  }
  if (!bytes_known) totals.text_bytes = 0;
  return totals;
}

ShardMeta DescribeMerged(const Shards& shards) {
  ShardMeta meta = shards.front()->meta();
  meta.sources.clear();
  std::string plan = "shoestring merge 1";
  for (const auto& shard : shards) {
    const ShardMeta& part = shard->meta();
    meta.sources.insert(meta.sources.end(), part.sources.begin(), part.sources.end());
    if (part.settings.seed != meta.settings.seed) meta.settings.seed = 0;
    absl::StrAppend(&plan, "\n", shard->content_hash());
  }
  meta.plan = ChecksumHex(plan);
  return meta;
}

absl::Status CopyShard(const ShardReader& shard, ShardWriter* writer) {
  std::vector<int32_t> tokens;
  for (int64_t document = 0; document < shard.index_documents(); ++document) {
    const int64_t end = shard.DocumentStart(document + 1);
    for (int64_t sequence = shard.DocumentStart(document); sequence < end; ++sequence) {
      tokens.resize(static_cast<size_t>(shard.SequenceLength(sequence)));
      const auto count = static_cast<int64_t>(tokens.size());
      RETURN_IF_ERROR(shard.Read(shard.SequenceStart(sequence), count, tokens.data()));
      RETURN_IF_ERROR(writer->AddSequence(tokens));
    }
    writer->EndDocument();
  }
  return absl::OkStatus();
}

absl::Status CheckResult(FileSystem& fs, const std::string& prefix, const Totals& totals) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ShardReader> shard, ShardReader::Open(fs, prefix, ShardOpenOptions{}));
  RETURN_IF_ERROR(shard->VerifyAll());
  if (shard->tokens() == totals.tokens && shard->sequences() == totals.sequences &&
      shard->index_documents() == totals.index_documents) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat(prefix, ": the merged shard does not have the sums of its inputs; merge again"));
}

}  // namespace

absl::StatusOr<ShardMeta> MergeShards(FileSystem& fs, const MergeOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  RETURN_IF_ERROR(CheckNothingToLose(fs, options));
  Shards shards;
  for (const std::string& input : options.inputs) {
    ASSIGN_OR_RETURN(std::unique_ptr<ShardReader> shard, ShardReader::Open(fs, input, options.open));
    shards.push_back(std::move(shard));
  }
  RETURN_IF_ERROR(CheckAgree(shards));
  const Totals totals = SumUp(shards);
  ASSIGN_OR_RETURN(const std::unique_ptr<FileLock> lock, LockOutput(fs, options.output));
  RETURN_IF_ERROR(CheckNothingToLose(fs, options));  // another process may have been faster
  ASSIGN_OR_RETURN(const std::unique_ptr<ShardWriter> writer,
                   ShardWriter::Create(fs, options.output, DescribeMerged(shards)));
  for (const auto& shard : shards) RETURN_IF_ERROR(CopyShard(*shard, writer.get()));
  ASSIGN_OR_RETURN(ShardMeta merged, writer->Finish(totals.documents, totals.text_bytes));
  RETURN_IF_ERROR(CheckResult(fs, options.output, totals));
  return merged;
}

}  // namespace shoestring
