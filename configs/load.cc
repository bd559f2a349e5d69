// Bodies of config loading: protobuf's text parser, its complaints put in our form, and the merge of several files.
#include "configs/load.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "configs/override.h"
#include "configs/suggest.h"
#include "configs/walk.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"

namespace shoestring::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

std::string Place(absl::string_view source, int line, int column) {
  return absl::StrCat(source, ":", line + 1, ":", column + 1);
}

// The part of `text` between the n-th pair of double quotes, from 0; empty when there is none.
std::string Quoted(absl::string_view text, size_t n) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '"');
  return 2 * n + 2 < parts.size() ? std::string(parts[2 * n + 1]) : "";
}

// The enum type of the first enum field of this name in the schema.
const google::protobuf::EnumDescriptor* FindEnum(const Descriptor& type, absl::string_view field_name, int depth) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.name() == field_name && field.enum_type() != nullptr) return field.enum_type();
    if (field.message_type() == nullptr || depth >= kMaxConfigDepth) continue;
    if (const auto* found = FindEnum(*field.message_type(), field_name, depth + 1)) return found;
  }
  return nullptr;
}

// Turns the parser's complaints into problems.
class Collector final : public google::protobuf::io::ErrorCollector {
 public:
  Collector(absl::string_view text, const std::string& source, const Descriptor& root, std::vector<Problem>& problems)
      : lines_(absl::StrSplit(text, '\n')), source_(source), root_(root), problems_(problems) {}

  void AddError(int line, int column, const std::string& message) override {
    if (line < 0) return;  // "missing required fields" of the whole message: the schema has none
    Problem problem{"", "", message, ""};
    std::string token;
    if (absl::StartsWith(message, "Unknown enumeration value")) {
      token = Quoted(message, 0);
      problem.field = Quoted(message, 1);
      problem.problem = absl::StrCat("unknown value ", token);
      if (const auto* type = FindEnum(root_, problem.field, 0)) problem.hint = UnknownEnumHint(*type, token);
    } else if (absl::StrContains(message, "specified multiple times")) {
      token = problem.field = Quoted(message, 0);
      problem.problem = "said twice";
      problem.hint = "say it once; a later file or --set replaces it";
    } else if (absl::StrContains(message, "is too deep")) {
      problem.problem = "messages are nested too deep";
    } else if (absl::StrContains(message, "has no field named")) {
      AddUnknownField(line, column, message);
      return;
    }
    Add(line, column, token, problem);
  }

  // The parser runs with unknown fields allowed, which makes them warnings and lets it go on to find the others.
  void AddWarning(int line, int column, const std::string& message) override { AddError(line, column, message); }

 private:
  void AddUnknownField(int line, int column, const std::string& message) {
    const std::string type_name = Quoted(message, 0);
    const std::string name = Quoted(message, 1);
    const Descriptor* type = RunConfig::descriptor()->file()->pool()->FindMessageTypeByName(type_name);
    const std::string short_name = type_name.substr(type_name.rfind('.') + 1);
    Add(line, column, name,
        {"", name, absl::StrCat(short_name, " has no such field"), type ? UnknownFieldHint(*type, name) : ""});
  }

  void Add(int line, int column, const std::string& token, Problem problem) {
    problem.place = Place(source_, line, ColumnOf(token, line, column));
    problems_.push_back(std::move(problem));
  }

  // The parser reports the token after the one that it means; finds the latter where it stands on the same line.
  int ColumnOf(const std::string& token, int line, int column) const {
    if (token.empty() || line >= static_cast<int>(lines_.size())) return column;
    if (absl::StrContains(lines_[line], '\t')) return column;  // there, columns are not characters
    const size_t found = lines_[line].rfind(token, column);
    return found == absl::string_view::npos ? column : static_cast<int>(found);
  }

  std::vector<absl::string_view> lines_;
  const std::string& source_;
  const Descriptor& root_;
  std::vector<Problem>& problems_;
};

// Bytes of the UTF-8 sequence at the start of `text`; 0 when it is not one (overlong forms and surrogates are not).
int Utf8Length(absl::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const bool ok = (lead != 0xE0 || byte(1) >= 0xA0) && (lead != 0xED || byte(1) < 0xA0);
    return ok && tail(1) && tail(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const bool ok = (lead != 0xF0 || byte(1) >= 0x90) && (lead != 0xF4 || byte(1) < 0x90);
    return ok && tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

// Adds a problem and returns false when the text is not UTF-8 throughout.
bool CheckUtf8(absl::string_view text, const std::string& source, std::vector<Problem>& problems) {
  int line = 0;
  size_t line_start = 0;
  for (size_t i = 0; i < text.size();) {
    const int length = Utf8Length(text.substr(i, 4));
    if (length == 0) {
      problems.push_back(
          {Place(source, line, static_cast<int>(i - line_start)), "",
           absl::StrCat("byte 0x", absl::Hex(static_cast<unsigned char>(text[i]), absl::kZeroPad2), " is not UTF-8"),
           "save the file as UTF-8 text"});
      return false;
    }
    if (text[i] == '\n') {
      ++line;
      line_start = i + 1;
    }
    i += length;
  }
  return true;
}

// Messages inside messages are counted before parsing: skipping unknown ones recurses in the parser without a limit.
bool CheckDepth(absl::string_view text, const std::string& source, std::vector<Problem>& problems) {
  int depth = 0;
  int line = 0;
  bool comment = false;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') {
      ++line;
      comment = false;
      quote = 0;
    } else if (comment) {
      continue;
    } else if (quote != 0) {
      if (c == '\\') ++i;
      if (c == quote) quote = 0;
    } else if (c == '#') {
      comment = true;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '{' || c == '<' || c == '[') {
      if (++depth <= kMaxConfigDepth) continue;
      problems.push_back({absl::StrCat(source, ":", line + 1), "",
                          absl::StrCat("messages are nested deeper than ", kMaxConfigDepth), "close some of them"});
      return false;
    } else if (c == '}' || c == '>' || c == ']') {
      --depth;
    }
  }
  return true;
}

void RecordLocations(const Message& message, TextFormat::ParseInfoTree& tree, const std::string& source,
                     const std::string& path, Locations& locations) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? message.GetReflection()->FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const int index = field->is_repeated() ? i : -1;
      const FieldValue value{message, *field, index, FieldPath(path, *field, index)};
      const TextFormat::ParseLocation location = tree.GetLocation(field, index);
      const std::string place = Place(source, location.line, location.column);
      if (i == 0) locations.Set(FieldPath(path, *field, -1), place);
      locations.Set(value.path, place);
      TextFormat::ParseInfoTree* nested = field->message_type() ? tree.GetTreeForNested(field, index) : nullptr;
      if (nested != nullptr) RecordLocations(SubMessage(value), *nested, source, value.path, locations);
    }
  }
}

// The file's text; adds a problem and returns "" when it cannot be had.
std::string ReadConfigFile(FileSystem& fs, const std::string& file, std::vector<Problem>& problems) {
  const absl::StatusOr<FileInfo> info = fs.Stat(file);
  if (!info.ok()) {
    problems.push_back({file, "", std::string(info.status().message()), "check the path given to --config"});
    return "";
  }
  if (info->is_directory) {
    problems.push_back({file, "", "is a directory", "name a .textproto file in it"});
    return "";
  }
  if (info->size_bytes > kMaxConfigBytes) {
    problems.push_back({file, "", absl::StrCat("has ", info->size_bytes, " bytes"),
                        absl::StrCat("a config has at most ", kMaxConfigBytes)});
    return "";
  }
  const absl::StatusOr<std::string> text = ReadFile(fs, file);
  if (text.ok()) return *text;
  problems.push_back({file, "", std::string(text.status().message()), "check the path given to --config"});
  return "";
}

void MergeFile(absl::string_view text, const std::string& source, LoadedConfig& loaded,
               std::vector<Problem>& problems) {
  RunConfig config;
  Locations locations;
  ParseText(text, source, config, &locations, problems);
  MergeReplacing(config, loaded.config, "", [&](const std::string& path) { loaded.locations.Erase(path); });
  for (const auto& [path, place] : locations.places()) loaded.locations.Set(path, place);
  loaded.locations.set_default_place(source);
}

absl::StatusOr<LoadedConfig> Finish(LoadedConfig loaded, const std::vector<std::string>& overrides,
                                    std::vector<Problem> problems) {
  if (!problems.empty()) return ProblemsToStatus(problems);  // overrides of half a config would only confuse
  for (const std::string& text : overrides) ApplyOverride(text, loaded.config, loaded.locations, problems);
  if (!problems.empty()) return ProblemsToStatus(problems);
  return loaded;
}

}  // namespace

void ParseText(absl::string_view text, const std::string& source, Message& message, Locations* locations,
               std::vector<Problem>& problems) {
  if (!CheckUtf8(text, source, problems) || !CheckDepth(text, source, problems)) return;
  const size_t before = problems.size();
  Collector collector(text, source, *message.GetDescriptor(), problems);
  TextFormat::ParseInfoTree tree;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(&tree);
  parser.AllowUnknownField(true);
  parser.SetRecursionLimit(kMaxConfigDepth + 1);
  const bool parsed = parser.ParseFromString(std::string(text), &message);
  if (!parsed && problems.size() == before) problems.push_back({source, "", "is not protobuf text", ""});
  if (locations != nullptr) RecordLocations(message, tree, source, "", *locations);
}

absl::StatusOr<LoadedConfig> LoadConfig(FileSystem& fs, const std::vector<std::string>& files,
                                        const std::vector<std::string>& overrides) {
  LoadedConfig loaded;
  std::vector<Problem> problems;
  for (const std::string& file : files) {
    const std::string text = ReadConfigFile(fs, file, problems);
    MergeFile(text, file, loaded, problems);
  }
  return Finish(std::move(loaded), overrides, std::move(problems));
}

absl::StatusOr<LoadedConfig> ParseConfig(absl::string_view text, const std::string& source,
                                         const std::vector<std::string>& overrides) {
  LoadedConfig loaded;
  std::vector<Problem> problems;
  MergeFile(text, source, loaded, problems);
  return Finish(std::move(loaded), overrides, std::move(problems));
}

}  // namespace shoestring::config
