// Rules of what holds for the whole training, and of its data.
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "configs/validate_rules.h"

namespace shoestring::config {
namespace {

void ValidatePieces(const google::protobuf::RepeatedPtrField<TokenValue>& pieces, const char* name,
                    Findings& findings) {
  int64_t previous = 0;
  for (int i = 0; i < pieces.size(); ++i) {
    const std::string path = absl::StrCat("train.", name, "[", i, "]");
    const bool last = i + 1 == pieces.size();
    if (!pieces[i].has_until_tokens()) {
      findings.AddUnless(last, path, "has no until_tokens and is not the last piece", "only the last piece is open");
      continue;
    }
    findings.AddUnless(!last, absl::StrCat(path, ".until_tokens"), "the last piece ends",
                       "leave its until_tokens out, so that every token has a value");
    findings.AddUnless(pieces[i].until_tokens() > previous, absl::StrCat(path, ".until_tokens"),
                       absl::StrCat(pieces[i].until_tokens(), " is not above the previous piece's ", previous),
                       "pieces are in the order of tokens");
    previous = pieces[i].until_tokens();
  }
}

// A setting that one part of the model needs, and that nothing reads without it.
void ValidateNeeded(bool needed, bool said, const char* name, const char* reader, Findings& findings) {
  const std::string path = absl::StrCat("train.", name);
  findings.AddUnless(!needed || said, path, "is not set", absl::StrCat(reader, " needs it"));
  findings.AddUnless(needed || !said, path, absl::StrCat("is set, but the model has no ", reader), "take it out");
}

// Documents are fitted to one length when shards are prepared, and all phases read the same shards.
void ValidateOneLength(const TrainConfig& train, Findings& findings) {
  for (int i = 1; i < train.phase_size(); ++i) {
    const int64_t first = train.phase(0).sequence_length();
    const int64_t other = train.phase(i).sequence_length();
    if (first <= 0 || other <= 0 || other == first) continue;
    findings.Add("data.packing",
                 absl::StrCat("BEST_FIT fits documents to one sequence_length, but ", PhasePath(0), " has ", first,
                              " and ", PhasePath(i), " has ", other),
                 "say CONCATENATE, which serves all lengths, or make a run of each");
    return;
  }
}

}  // namespace

void ValidateTrain(const RunConfig& config, Findings& findings) {
  const TrainConfig& train = config.train();
  if (config.has_model()) {
    const bool moe = config.model().has_moe();
    ValidateNeeded(moe, train.bias_speed_size() > 0, "bias_speed", "moe", findings);
    ValidateNeeded(moe, train.has_balance_alpha(), "balance_alpha", "moe", findings);
    ValidateNeeded(config.model().mtp_depth() > 0, train.mtp_weight_size() > 0, "mtp_weight", "mtp_depth", findings);
  }
  ValidatePieces(train.bias_speed(), "bias_speed", findings);
  ValidatePieces(train.mtp_weight(), "mtp_weight", findings);
  findings.AddUnless(!train.has_ema() || train.ema().speed_case() != EmaConfig::SPEED_NOT_SET, "train.ema",
                     "has no speed", "say decay or half_life_tokens, or take ema out");
  findings.AddUnless(!train.has_validation() || config.data().has_validation_prefix(), "data.validation_prefix",
                     "is not set", "train.validation needs it");
}

void ValidateData(const RunConfig& config, Findings& findings) {
  const DataConfig& data = config.data();
  std::set<std::string> seen;
  for (int i = 0; i < data.source_size(); ++i) {
    const std::string path = absl::StrCat("data.source[", i, "].prefix");
    const std::string& prefix = data.source(i).prefix();
    findings.AddUnless(seen.insert(prefix).second, path, absl::StrCat("\"", prefix, "\" is listed twice"),
                       "add the weights of the two");
    findings.AddUnless(!data.has_validation_prefix() || prefix != data.validation_prefix(), path,
                       absl::StrCat("\"", prefix, "\" is the validation shard too"), "validate on held-out text");
  }
  if (data.packing() == DataConfig::BEST_FIT) ValidateOneLength(config.train(), findings);
}

}  // namespace shoestring::config
