// What the schema's options say of one field, in words.
#pragma once

#include <string>

#include "google/protobuf/descriptor.pb.h"

namespace shoestring::config {

// "at least 1 and at most 16"; empty when the schema sets no bounds.
std::string BoundsText(const google::protobuf::FieldOptions& options);

}  // namespace shoestring::config
