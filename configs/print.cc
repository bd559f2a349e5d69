// Bodies of canonical printing and of the two hashes.
#include "configs/print.h"

#include <openssl/sha.h>

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file_system.h"
#include "configs/schema/options.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"

namespace shoestring::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string Text(const Message& message) {
  std::string text;
  CHECK(google::protobuf::TextFormat::PrintToString(message, &text));
  return text;
}

// Sets a scalar to its own default.
void SayDefault(const FieldDescriptor* field, Message& message) {
  const Reflection* reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return reflection->SetInt32(&message, field, field->default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64: return reflection->SetInt64(&message, field, field->default_value_int64());
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection->SetDouble(&message, field, field->default_value_double());
    case FieldDescriptor::CPPTYPE_BOOL: return reflection->SetBool(&message, field, field->default_value_bool());
    case FieldDescriptor::CPPTYPE_ENUM: return reflection->SetEnum(&message, field, field->default_value_enum());
    default: CHECK_EQ(field->full_name(), "a field whose type has defaults");
  }
}

// Calls `visit` for each message below and including `message` that is present; a phase's layout replaces the run's
// field by field, so that its defaults must not be said.
template <typename Visit>
void ForEachMessage(Message& message, const Visit& visit) {
  visit(message);
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->message_type() == nullptr || field->full_name() == "shoestring.config.Phase.layout") continue;
    const Reflection* reflection = message.GetReflection();
    if (!field->is_repeated()) ForEachMessage(*reflection->MutableMessage(&message, field), visit);
    for (int i = 0; field->is_repeated() && i < reflection->FieldSize(message, field); ++i) {
      ForEachMessage(*reflection->MutableRepeatedMessage(&message, field, i), visit);
    }
  }
}

void SayDefaultsOf(Message& message) {
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    const bool said = field->is_repeated() || message.GetReflection()->HasField(message, field);
    if (!said && field->has_default_value()) SayDefault(field, message);
  }
}

void StripOperational(Message& message) {
  const Reflection* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->options().GetExtension(operational)) {
      reflection->ClearField(&message, field);
    } else if (field->options().GetExtension(path) && !field->is_repeated()) {
      reflection->SetString(&message, field, BaseName(reflection->GetString(message, field)));
    }
  }
}

std::string Sha256(const std::string& text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), sizeof(digest)));
}

}  // namespace

std::string CanonicalText(const RunConfig& config) {
  return absl::StrCat("# proto-file: configs/schema/run.proto\n# proto-message: shoestring.config.RunConfig\n\n",
                      Text(config));
}

void FillDefaults(RunConfig& config) {
  config.mutable_recompute();
  config.mutable_checkpoint();
  config.mutable_layout()->mutable_exchange();
  if (config.layout().schedule_case() == LayoutConfig::SCHEDULE_NOT_SET) config.mutable_layout()->mutable_one_f_one_b();
  ForEachMessage(config, SayDefaultsOf);
}

RunConfig NumericsOnly(const RunConfig& config) {
  RunConfig numerics = config;
  ForEachMessage(numerics, StripOperational);
  return numerics;
}

std::string NumericsHash(const RunConfig& config) {
  RunConfig numerics = config;
  FillDefaults(numerics);
  return Sha256(absl::StrCat("numerics\n", Text(NumericsOnly(numerics))));
}

std::string RunHash(const RunConfig& config) {
  RunConfig full = config;
  FillDefaults(full);
  return Sha256(absl::StrCat("run\n", Text(full)));
}

}  // namespace shoestring::config
