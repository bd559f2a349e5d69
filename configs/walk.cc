// Bodies of the walks over a config by reflection.
#include "configs/walk.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"

namespace shoestring::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

void WalkBelow(const Message& message, const std::string& path, const std::function<bool(const FieldValue&)>& visit) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? message.GetReflection()->FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const int index = field->is_repeated() ? i : -1;
      const FieldValue value{message, *field, index, FieldPath(path, *field, index)};
      const bool enter = visit(value);
      if (enter && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)
        WalkBelow(SubMessage(value), value.path, visit);
    }
  }
}

}  // namespace

std::string FieldPath(absl::string_view parent, const FieldDescriptor& field, int index) {
  std::string path = parent.empty() ? field.name() : absl::StrCat(parent, ".", field.name());
  if (index >= 0) absl::StrAppend(&path, "[", index, "]");
  return path;
}

void Walk(const Message& root, const std::function<bool(const FieldValue&)>& visit) { WalkBelow(root, "", visit); }

std::string ScalarText(const FieldValue& value) {
  std::string text;
  google::protobuf::TextFormat::PrintFieldValueToString(value.message, &value.field, value.index, &text);
  return text;
}

const Message& SubMessage(const FieldValue& value) {
  const google::protobuf::Reflection* reflection = value.message.GetReflection();
  return value.index < 0 ? reflection->GetMessage(value.message, &value.field)
                         : reflection->GetRepeatedMessage(value.message, &value.field, value.index);
}

void MoveField(const FieldDescriptor& field, Message& from, Message& to) {
  to.GetReflection()->ClearField(&to, &field);
  to.GetReflection()->SwapFields(&to, &from, {&field});
}

void MergeReplacing(Message& from, Message& to, absl::string_view path,
                    const std::function<void(const std::string& path)>& replaced) {
  std::vector<const FieldDescriptor*> fields;
  from.GetReflection()->ListFields(from, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string field_path = FieldPath(path, *field, -1);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated()) {
      MergeReplacing(*from.GetReflection()->MutableMessage(&from, field),
                     *to.GetReflection()->MutableMessage(&to, field), field_path, replaced);
      continue;
    }
    if (replaced) replaced(field_path);
    MoveField(*field, from, to);
  }
}

}  // namespace shoestring::config
