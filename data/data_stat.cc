// Counts, entropy, histograms, and the warnings they give rise to.
#include "data/data_stat.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "data/utf8.h"

namespace shoestring {
namespace {

constexpr int64_t kChunk = int64_t{1} << 16;

void CountLength(int64_t length, std::vector<int64_t>* histogram) {
  const auto bucket = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(length)) - 1);
  if (histogram->size() <= bucket) histogram->resize(bucket + 1, 0);
  ++(*histogram)[bucket];
}

// Cuts the stream of tokens into pieces.
class PieceCounter {
 public:
  PieceCounter(int32_t eos_id, DataStat* stat) : eos_id_(eos_id), stat_(stat) {}
  void Add(int32_t token) {
    ++length_;
    if (token == eos_id_) End();
  }
  void End() {
    if (length_ == 0) return;
    CountLength(length_, &stat_->piece_lengths);
    ++stat_->pieces;
    length_ = 0;
  }

 private:
  int32_t eos_id_;
  DataStat* stat_;
  int64_t length_ = 0;
};

// Fills in what needs the tokens in order, and returns how often each id occurs.
absl::StatusOr<std::vector<int64_t>> CountTokens(const ShardReader& shard, DataStat* stat) {
  std::vector<int64_t> counts(static_cast<size_t>(shard.meta().vocab_size), 0);
  std::vector<int32_t> chunk(static_cast<size_t>(kChunk));
  PieceCounter pieces(shard.meta().eos_id, stat);
  for (int64_t sequence = 0; sequence < shard.sequences(); ++sequence) {
    const int64_t length = shard.SequenceLength(sequence);
    CountLength(length, &stat->sequence_lengths);
    for (int64_t done = 0; done < length; done += kChunk) {
      const int64_t count = std::min(kChunk, length - done);
      RETURN_IF_ERROR(shard.Read(shard.SequenceStart(sequence) + done, count, chunk.data()));
      for (int64_t i = 0; i < count; ++i) {
        ++counts[static_cast<size_t>(chunk[static_cast<size_t>(i)])];
        pieces.Add(chunk[static_cast<size_t>(i)]);
      }
    }
    if (shard.meta().packing == Packing::kBestFit) pieces.End();
  }
  pieces.End();
  return counts;
}

void Summarise(const std::vector<int64_t>& counts, int32_t eos_id, const DataStatOptions& options, DataStat* stat) {
  const auto total = static_cast<double>(stat->tokens);
  int64_t special = 0, unseen = 0;
  for (size_t id = 0; id < counts.size(); ++id) {
    const int64_t count = counts[id];
    if (count == 0) {
      ++unseen;
      continue;
    }
    const double share = static_cast<double>(count) / total;
    stat->entropy_bits -= share * std::log2(share);
    const auto token = static_cast<int32_t>(id);
    if (options.is_special ? options.is_special(token) : token == eos_id) special += count;
    stat->top.push_back({token, count});
  }
  stat->special_share = total > 0 ? static_cast<double>(special) / total : 0.0;
  stat->never_seen_share = static_cast<double>(unseen) / static_cast<double>(counts.size());
  const auto more_frequent = [](const TokenCount& a, const TokenCount& b) {
    return a.count != b.count ? a.count > b.count : a.id < b.id;
  };
  std::sort(stat->top.begin(), stat->top.end(), more_frequent);
  if (static_cast<int64_t>(stat->top.size()) > options.top) stat->top.resize(static_cast<size_t>(options.top));
}

// Thresholds are generous: English gives 8 to 11 bits, a few per cent of special tokens, and a top token below 10 %.
void Warn(int64_t vocab_size, DataStat* stat) {
  const auto warn = [stat](std::string text) { stat->warnings.push_back(std::move(text)); };
  if (stat->tokens == 0) return warn("the shard is empty");
  const double top_share =
      stat->top.empty() ? 0.0 : static_cast<double>(stat->top[0].count) / static_cast<double>(stat->tokens);
  if (top_share > 0.5) {
    warn(absl::StrFormat("token %d makes up %.1f %% of all: is the tokenizer the right one for this text?",
                         stat->top[0].id, 100.0 * top_share));
  }
  if (stat->special_share > 0.25) {
    warn(absl::StrFormat("%.1f %% of the tokens are special: are the documents very short?",
                         100.0 * stat->special_share));
  }
  if (vocab_size >= 1024 && stat->tokens > 100 * vocab_size && stat->never_seen_share > 0.9) {
    warn(absl::StrFormat("%.1f %% of the vocabulary never occurs: is the tokenizer the right one for this text?",
                         100.0 * stat->never_seen_share));
  }
  if (stat->bytes_per_token > 0 && stat->bytes_per_token < 1.2) {
    warn(absl::StrFormat("a token holds %.2f bytes on average: the tokenizer hardly merges anything",
                         stat->bytes_per_token));
  }
}

std::string FormatHistogram(absl::string_view title, const std::vector<int64_t>& histogram) {
  int64_t total = 0;
  for (const int64_t count : histogram) total += count;
  std::string text = absl::StrCat(title, "\n");
  for (size_t i = 0; i < histogram.size(); ++i) {
    if (histogram[i] == 0) continue;
    absl::StrAppendFormat(&text, "  %10d .. %-10d %12d  %5.1f %%\n", int64_t{1} << i, (int64_t{1} << (i + 1)) - 1,
                          histogram[i], 100.0 * static_cast<double>(histogram[i]) / static_cast<double>(total));
  }
  return text;
}

// A token may end within a character; a terminal must not get half of one.
std::string Escaped(const std::string& bytes) {
  return CheckUtf8(bytes).ok() ? absl::Utf8SafeCEscape(bytes) : absl::CHexEscape(bytes);
}

}  // namespace

absl::StatusOr<DataStat> ComputeDataStat(const ShardReader& shard, const DataStatOptions& options) {
  const ShardMeta& meta = shard.meta();
  DataStat stat;
  stat.tokens = shard.tokens();
  stat.sequences = shard.sequences();
  ASSIGN_OR_RETURN(const std::vector<int64_t> counts, CountTokens(shard, &stat));
  Summarise(counts, meta.eos_id, options, &stat);
  if (meta.text_bytes > 0 && stat.tokens > 0) {
    stat.bytes_per_token = static_cast<double>(meta.text_bytes) / static_cast<double>(stat.tokens);
  }
  Warn(meta.vocab_size, &stat);
  return stat;
}

std::string FormatDataStat(const ShardMeta& meta, const DataStat& stat,
                           const std::function<std::string(int32_t id)>& spell) {
  std::string text;
  absl::StrAppendFormat(&text, "tokenizer        %s\n", meta.tokenizer_fingerprint);
  absl::StrAppendFormat(&text, "packing          %s", PackingName(meta.packing));
  if (meta.sequence_length > 0) absl::StrAppendFormat(&text, " for %d", meta.sequence_length);
  absl::StrAppendFormat(&text, "\ntokens           %d\nsequences        %d\ndocuments        %d\npieces           %d\n",
                        stat.tokens, stat.sequences, meta.documents, stat.pieces);
  if (stat.bytes_per_token > 0) absl::StrAppendFormat(&text, "bytes per token  %.3f\n", stat.bytes_per_token);
  absl::StrAppendFormat(
      &text, "entropy          %.3f bits a token\nspecial tokens   %.3f %%\nids never seen   %.2f %% of %d\n",
      stat.entropy_bits, 100.0 * stat.special_share, 100.0 * stat.never_seen_share, meta.vocab_size);
  absl::StrAppend(&text, FormatHistogram("piece lengths in tokens", stat.piece_lengths));
  absl::StrAppend(&text, FormatHistogram("sequence lengths in tokens", stat.sequence_lengths));
  absl::StrAppend(&text, "most frequent tokens\n");
  for (const TokenCount& entry : stat.top) {
    absl::StrAppendFormat(&text, "  %8d %12d  %5.2f %%", entry.id, entry.count,
                          100.0 * static_cast<double>(entry.count) / static_cast<double>(stat.tokens));
    if (spell) absl::StrAppend(&text, "  \"", Escaped(spell(entry.id)), "\"");
    absl::StrAppend(&text, "\n");
  }
  for (const std::string& warning : stat.warnings) absl::StrAppend(&text, "warning: ", warning, "\n");
  return text;
}

}  // namespace shoestring
