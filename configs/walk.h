// Walks over every field that a message says, with its path as users write it: "train.phase[0].micro_batch".
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace shoestring::config {

// One value: a singular field, or one element of a repeated field.
struct FieldValue {
  const google::protobuf::Message& message;  // the message that has the field
  const google::protobuf::FieldDescriptor& field;
  int index;         // element of a repeated field, else -1
  std::string path;  // from the root of the walk
};

// "parent.name", "name" at the root, with "[index]" when index is not negative.
std::string FieldPath(absl::string_view parent, const google::protobuf::FieldDescriptor& field, int index);

// Calls `visit` for every value that is present below `root`, messages before their contents, in the order of tags.
// `visit` returns whether to go into the message it was given (the answer for a scalar is ignored).
void Walk(const google::protobuf::Message& root, const std::function<bool(const FieldValue&)>& visit);

// The text form of a scalar, as a config file would say it.
std::string ScalarText(const FieldValue& value);

// The sub-message that a value of message type is.
const google::protobuf::Message& SubMessage(const FieldValue& value);

// Copies one field, singular or repeated, message or scalar, leaving `from` without it; replaces what `to` had.
void MoveField(const google::protobuf::FieldDescriptor& field, google::protobuf::Message& from,
               google::protobuf::Message& to);

// Fields of `from` replace those of `to`; messages are merged field by field, repeated fields are replaced whole.
// `from` is used up. `replaced` (may be empty) is called with the path of each field before it is replaced.
void MergeReplacing(google::protobuf::Message& from, google::protobuf::Message& to, absl::string_view path,
                    const std::function<void(const std::string& path)>& replaced);

}  // namespace shoestring::config
