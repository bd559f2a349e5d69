// The field reference: the schema's comments, bounds and defaults as a Markdown page.
#pragma once

#include <string>

#include "google/protobuf/descriptor.pb.h"

namespace shoestring::config {

// The page for any set of files that carries its comments (protoc --include_source_info).
std::string GenerateReference(const google::protobuf::FileDescriptorSet& files);

// The schema that this program was built with, comments included.
google::protobuf::FileDescriptorSet SchemaDescriptors();

}  // namespace shoestring::config
