// Body of the field reference: walks the descriptors and picks up the comments that stand before each name.
#include "configs/reference.h"

#include <map>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "configs/field_rules.h"
#include "configs/schema/options.pb.h"

namespace shoestring::config {

namespace internal {
extern const unsigned char kSchemaDescriptors[];  // in the generated schema_descriptors.cc
extern const int kSchemaDescriptorsSize;
}  // namespace internal

namespace {

using google::protobuf::DescriptorProto;
using google::protobuf::EnumDescriptorProto;
using google::protobuf::FieldDescriptorProto;
using google::protobuf::FileDescriptorProto;

// Comments by the descriptor path of what they stand before (see SourceCodeInfo in descriptor.proto).
using Comments = std::map<std::vector<int>, std::string>;

Comments CommentsOf(const FileDescriptorProto& file) {
  Comments comments;
  for (const auto& location : file.source_code_info().location()) {
    std::string text = location.leading_comments();
    absl::StripAsciiWhitespace(&text);
    comments[{location.path().begin(), location.path().end()}] = absl::StrReplaceAll(text, {{"\n ", " "}});
  }
  return comments;
}

std::vector<int> Join(std::vector<int> path, std::initializer_list<int> more) {
  path.insert(path.end(), more);
  return path;
}

std::string LastName(absl::string_view type) { return std::string(type.substr(type.rfind('.') + 1)); }

std::string TypeText(const FieldDescriptorProto& field) {
  const bool list = field.label() == FieldDescriptorProto::LABEL_REPEATED;
  const std::string name = LastName(field.type_name());
  std::string type;
  if (field.type() == FieldDescriptorProto::TYPE_MESSAGE) {
    type = absl::StrCat("[", name, "](#", absl::AsciiStrToLower(name), ")");
  } else if (field.type() == FieldDescriptorProto::TYPE_ENUM) {
    type = name;
  } else {
    type = absl::AsciiStrToLower(FieldDescriptorProto::Type_Name(field.type()).substr(5));
  }
  return list ? absl::StrCat("list of ", type) : type;
}

std::string RuleText(const FieldDescriptorProto& field, const DescriptorProto& message) {
  std::vector<std::string> parts;
  if (field.options().GetExtension(must_be_set)) parts.push_back("must be set");
  if (field.has_default_value()) parts.push_back(absl::StrCat("default ", field.default_value()));
  if (field.has_oneof_index()) {
    parts.push_back(absl::StrCat("one choice of ", message.oneof_decl(field.oneof_index()).name()));
  }
  if (const std::string bounds = BoundsText(field.options()); !bounds.empty()) parts.push_back(bounds);
  if (field.options().GetExtension(operational)) parts.push_back("run only");
  return absl::StrJoin(parts, "; ");
}

std::string Cell(const std::string& text) { return absl::StrReplaceAll(text, {{"|", "\\|"}, {"\n", " "}}); }

void AppendEnum(const EnumDescriptorProto& type, const std::vector<int>& path, const Comments& comments,
                std::string& out) {
  absl::StrAppend(&out, "\n`", type.name(), "`:\n\n");
  for (int v = 0; v < type.value_size(); ++v) {
    const auto comment = comments.find(Join(path, {EnumDescriptorProto::kValueFieldNumber, v}));
    const std::string text = comment == comments.end() ? "" : comment->second;
    absl::StrAppend(&out, "- `", type.value(v).name(), "`", text.empty() ? "" : ": ", text, "\n");
  }
}

void AppendMessage(const DescriptorProto& message, const std::vector<int>& path, const Comments& comments,
                   std::string& out) {
  const auto comment_of = [&](const std::vector<int>& of) {
    const auto it = comments.find(of);
    return it == comments.end() ? std::string() : it->second;
  };
  absl::StrAppend(&out, "\n### ", message.name(), "\n\n", comment_of(path), "\n");
  if (message.field_size() > 0)
    absl::StrAppend(&out, "\n| field | type | rule | meaning |\n| --- | --- | --- | --- |\n");
  for (int f = 0; f < message.field_size(); ++f) {
    const FieldDescriptorProto& field = message.field(f);
    const std::string comment = comment_of(Join(path, {DescriptorProto::kFieldFieldNumber, f}));
    absl::StrAppend(&out, "| `", field.name(), "` | ", TypeText(field), " | ", RuleText(field, message), " | ",
                    Cell(comment), " |\n");
  }
  for (int e = 0; e < message.enum_type_size(); ++e) {
    AppendEnum(message.enum_type(e), Join(path, {DescriptorProto::kEnumTypeFieldNumber, e}), comments, out);
  }
}

}  // namespace

std::string GenerateReference(const google::protobuf::FileDescriptorSet& files) {
  std::string out =
      "# Config reference\n\n"
      "Generated from the comments in `configs/schema/`; do not edit. A config is protobuf text of a "
      "[RunConfig](#runconfig).\n"
      "Fields marked *run only* change cost, place or reporting, never a weight; all others are part of the numerics "
      "hash.\n";
  for (const FileDescriptorProto& file : files.file()) {
    if (file.message_type_size() == 0) continue;
    const Comments comments = CommentsOf(file);
    absl::StrAppend(&out, "\n## ", file.name(), "\n");
    for (int m = 0; m < file.message_type_size(); ++m) {
      AppendMessage(file.message_type(m), {FileDescriptorProto::kMessageTypeFieldNumber, m}, comments, out);
    }
  }
  return out;
}

google::protobuf::FileDescriptorSet SchemaDescriptors() {
  google::protobuf::FileDescriptorSet files;
  CHECK(files.ParseFromArray(internal::kSchemaDescriptors, internal::kSchemaDescriptorsSize));
  return files;
}

}  // namespace shoestring::config
