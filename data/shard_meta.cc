// Prints and parses meta.json, strictly, and computes block checksums.
#include "data/shard_meta.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strict_json.h"

namespace shoestring {
namespace {

using Json = nlohmann::json;

constexpr size_t kNameBytes = 80;  // of an unknown field, in a message

std::string DigestHex(XXH128_hash_t hash) {
  return absl::StrCat(absl::Hex(hash.high64, absl::kZeroPad16), absl::Hex(hash.low64, absl::kZeroPad16));
}

Json ToJson(const ShardMeta& meta) {
  Json json;
  json["format_version"] = 1;
  json["tokenizer_fingerprint"] = meta.tokenizer_fingerprint;
  json["vocab_size"] = meta.vocab_size;
  json["eos_id"] = meta.eos_id;
  json["sequences"] = meta.sequences;
  json["documents"] = meta.documents;
  json["tokens"] = meta.tokens;
  json["text_bytes"] = meta.text_bytes;
  json["packing"] = std::string(PackingName(meta.packing));
  json["sequence_length"] = meta.sequence_length;
  json["plan"] = meta.plan;
  json["settings"] = {{"seed", meta.settings.seed},
                      {"fim_rate", meta.settings.fim_rate},
                      {"token_split_rate", meta.settings.token_split_rate},
                      {"validation_fraction", meta.settings.validation_fraction},
                      {"role", meta.settings.role}};
  json["sources"] = Json::array();
  for (const ShardSource& source : meta.sources) {
    json["sources"].push_back({{"path", source.path}, {"bytes", source.bytes}});
  }
  json["checksums"] = {{"block_bytes", kChecksumBlockBytes}, {"bin", meta.bin_checksums}, {"idx", meta.idx_checksums}};
  return json;
}

// A path may hold any bytes; those that are not UTF-8 are replaced rather than refused.
std::string Dump(const Json& json, int indent) { return json.dump(indent, ' ', false, Json::error_handler_t::replace); }

// Reads typed fields and remembers the first that is missing, of another kind, or not asked for.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  void Get(const char* name, std::string* out) {
    if (const Json* value = Find(name, Json::value_t::string)) *out = value->get<std::string>();
  }
  void Get(const char* name, double* out) {
    const Json* value = Find(name, Json::value_t::number_float);
    if (value != nullptr) *out = value->get<double>();
  }
  void Get(const char* name, uint64_t* out) {
    const Json* value = Find(name, Json::value_t::number_unsigned);
    if (value != nullptr) *out = value->get<uint64_t>();
  }
  // All our counts are at least 0; -1 stands only for an eos that does not exist.
  void Get(const char* name, int64_t* out, int64_t lowest = 0, int64_t highest = INT64_MAX) {
    names_.push_back(name);
    const auto found = object_.find(name);
    const bool integer = found != object_.end() && found->is_number_integer();
    if (!integer || (found->is_number_unsigned() && found->get<uint64_t>() > uint64_t{INT64_MAX})) return Fail(name);
    const int64_t value = found->get<int64_t>();
    if (value < lowest || value > highest) return Fail(name);
    *out = value;
  }
  void Get(const char* name, std::vector<std::string>* out) {
    const Json* array = Find(name, Json::value_t::array);
    if (array == nullptr) return;
    for (const Json& entry : *array) {
      if (!entry.is_string()) return Fail(name);
      out->push_back(entry.get<std::string>());
    }
  }
  const Json* Find(const char* name, Json::value_t type) {
    names_.push_back(name);
    const auto found = object_.find(name);
    if (found == object_.end() || found->type() != type) {
      Fail(name);
      return nullptr;
    }
    return &*found;
  }
  void Fail(const std::string& name) {
    if (status_.ok()) status_ = absl::DataLossError(absl::StrCat("field \"", name, "\" is missing or has a bad value"));
  }
  const absl::Status& status() const { return status_; }
  // The status when all fields have been asked for: another one would be a promise that nobody reads.
  absl::Status Done() {
    for (auto field = object_.begin(); field != object_.end() && status_.ok(); ++field) {
      if (std::find(names_.begin(), names_.end(), field.key()) != names_.end()) continue;
      const std::string name = absl::CHexEscape(field.key().substr(0, kNameBytes));
      status_ = absl::DataLossError(absl::StrCat("field \"", name, "\" is not known"));
    }
    return status_;
  }

 private:
  const Json& object_;
  std::vector<absl::string_view> names_;  // asked for
  absl::Status status_;
};

absl::Status ParseSettings(const Json& json, ShardSettings* settings) {
  Fields fields(json);
  fields.Get("seed", &settings->seed);
  fields.Get("fim_rate", &settings->fim_rate);
  fields.Get("token_split_rate", &settings->token_split_rate);
  fields.Get("validation_fraction", &settings->validation_fraction);
  fields.Get("role", &settings->role);
  return fields.Done();
}

absl::Status ParseSources(const Json& json, std::vector<ShardSource>* sources) {
  for (const Json& entry : json) {
    if (!entry.is_object()) return absl::DataLossError("field \"sources\" has an entry that is not an object");
    ShardSource source;
    Fields fields(entry);
    fields.Get("path", &source.path);
    fields.Get("bytes", &source.bytes);
    RETURN_IF_ERROR(fields.Done());
    sources->push_back(std::move(source));
  }
  return absl::OkStatus();
}

absl::Status ParseChecksums(const Json& json, ShardMeta* meta) {
  int64_t block_bytes = 0;
  Fields fields(json);
  fields.Get("block_bytes", &block_bytes, kChecksumBlockBytes, kChecksumBlockBytes);
  fields.Get("bin", &meta->bin_checksums);
  fields.Get("idx", &meta->idx_checksums);
  return fields.Done();
}

absl::Status CheckSelf(Json* json) {
  const auto self = json->find("self");
  if (self == json->end() || !self->is_string()) return absl::DataLossError("field \"self\" is missing");
  const std::string stated = self->get<std::string>();
  json->erase("self");
  if (stated != ChecksumHex(Dump(*json, -1))) {
    return absl::DataLossError("its content does not match its own checksum; it was damaged or edited");
  }
  return absl::OkStatus();
}

}  // namespace

std::string BinPath(absl::string_view prefix) { return absl::StrCat(prefix, ".bin"); }
std::string IdxPath(absl::string_view prefix) { return absl::StrCat(prefix, ".idx"); }
std::string MetaPath(absl::string_view prefix) { return absl::StrCat(prefix, ".meta.json"); }

absl::string_view PackingName(Packing packing) { return packing == Packing::kBestFit ? "BEST_FIT" : "CONCATENATE"; }

std::string ChecksumHex(absl::string_view bytes) { return DigestHex(XXH3_128bits(bytes.data(), bytes.size())); }

std::string PrintShardMeta(const ShardMeta& meta) {
  Json json = ToJson(meta);
  // The printed form, not the values, is hashed: read it back so that both sides hash what a reader sees.
  json = Json::parse(Dump(json, -1));
  json["self"] = ChecksumHex(Dump(json, -1));
  return Dump(json, 2) + "\n";
}

absl::StatusOr<ShardMeta> ParseShardMeta(absl::string_view text) {
  absl::StatusOr<Json> parsed = ParseStrictJson(text);
  const absl::string_view problem = parsed.ok() ? "not a JSON object" : parsed.status().message();
  if (!parsed.ok() || !parsed->is_object()) {
    return absl::DataLossError(absl::StrCat(problem, "; prepare the data again or copy it again"));
  }
  Json& json = *parsed;
  Fields fields(json);
  int64_t version = 0;
  fields.Get("format_version", &version);
  RETURN_IF_ERROR(fields.status());
  if (version != 1) {
    return absl::DataLossError(
        absl::StrCat("format version ", version, ", this program reads 1; prepare the data again"));
  }
  RETURN_IF_ERROR(CheckSelf(&json));
  ShardMeta meta;
  int64_t eos_id = 0;
  std::string packing;
  fields.Get("tokenizer_fingerprint", &meta.tokenizer_fingerprint);
  fields.Get("vocab_size", &meta.vocab_size, 1, kMaxVocabSize);
  fields.Get("eos_id", &eos_id, 0, INT32_MAX);
  fields.Get("sequences", &meta.sequences);
  fields.Get("documents", &meta.documents);
  fields.Get("tokens", &meta.tokens);
  fields.Get("text_bytes", &meta.text_bytes);
  fields.Get("packing", &packing);
  fields.Get("sequence_length", &meta.sequence_length);
  fields.Get("plan", &meta.plan);
  const Json* settings = fields.Find("settings", Json::value_t::object);
  const Json* sources = fields.Find("sources", Json::value_t::array);
  const Json* checksums = fields.Find("checksums", Json::value_t::object);
  if (packing != "BEST_FIT" && packing != "CONCATENATE") fields.Fail("packing");
  if ((packing == "BEST_FIT") != (meta.sequence_length > 0)) fields.Fail("sequence_length");
  RETURN_IF_ERROR(fields.Done());
  meta.eos_id = static_cast<int32_t>(eos_id);
  meta.packing = packing == "BEST_FIT" ? Packing::kBestFit : Packing::kConcatenate;
  RETURN_IF_ERROR(ParseSettings(*settings, &meta.settings));
  RETURN_IF_ERROR(ParseSources(*sources, &meta.sources));
  RETURN_IF_ERROR(ParseChecksums(*checksums, &meta));
  return meta;
}

absl::StatusOr<ShardMeta> ReadShardMeta(FileSystem& fs, absl::string_view prefix) {
  const std::string path = MetaPath(prefix);
  ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path, kMaxMetaBytes));
  absl::StatusOr<ShardMeta> meta = ParseShardMeta(text);
  if (!meta.ok()) return WithContext(meta.status(), path);
  return meta;
}

BlockChecksummer::BlockChecksummer() : state_(XXH3_createState()) {
  CHECK(state_ != nullptr);
  XXH3_128bits_reset(state_);
}

BlockChecksummer::~BlockChecksummer() { XXH3_freeState(state_); }

void BlockChecksummer::Update(absl::string_view bytes) {
  while (!bytes.empty()) {
    const int64_t room = kChecksumBlockBytes - block_bytes_;
    const absl::string_view head = bytes.substr(0, static_cast<size_t>(room));
    XXH3_128bits_update(state_, head.data(), head.size());
    block_bytes_ += static_cast<int64_t>(head.size());
    bytes.remove_prefix(head.size());
    if (block_bytes_ == kChecksumBlockBytes) EndBlock();
  }
}

std::vector<std::string> BlockChecksummer::Finish() {
  if (block_bytes_ > 0) EndBlock();
  return std::move(checksums_);
}

void BlockChecksummer::EndBlock() {
  checksums_.push_back(DigestHex(XXH3_128bits_digest(state_)));
  XXH3_128bits_reset(state_);
  block_bytes_ = 0;
}

}  // namespace shoestring
