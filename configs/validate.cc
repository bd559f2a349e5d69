// The validator: what the schema says of each field, then the rules of each section.
#include "configs/validate.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "configs/field_rules.h"
#include "configs/schema/options.pb.h"
#include "configs/validate_rules.h"
#include "configs/walk.h"
#include "google/protobuf/descriptor.h"

namespace shoestring::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::FieldOptions;
using google::protobuf::Message;
using google::protobuf::Reflection;

bool IsNumber(const FieldDescriptor& field) {
  return field.cpp_type() != FieldDescriptor::CPPTYPE_STRING && field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE &&
         field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM && field.cpp_type() != FieldDescriptor::CPPTYPE_BOOL;
}

double NumberOf(const FieldValue& value) {
  const Reflection& reflection = *value.message.GetReflection();
  const FieldDescriptor* field = &value.field;
  const int i = value.index;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return i < 0 ? reflection.GetInt32(value.message, field) : reflection.GetRepeatedInt32(value.message, field, i);
    case FieldDescriptor::CPPTYPE_INT64: return static_cast<double>(reflection.GetInt64(value.message, field));
    case FieldDescriptor::CPPTYPE_UINT64: return static_cast<double>(reflection.GetUInt64(value.message, field));
    default: return reflection.GetDouble(value.message, field);
  }
}

void CheckBounds(const FieldValue& value, Findings& findings) {
  const FieldOptions& options = value.field.options();
  const double number = NumberOf(value);
  const bool outside = (options.HasExtension(min) && number < options.GetExtension(min)) ||
                       (options.HasExtension(max) && number > options.GetExtension(max)) ||
                       (options.HasExtension(above) && number <= options.GetExtension(above)) ||
                       (options.HasExtension(below) && number >= options.GetExtension(below));
  if (!std::isfinite(number) || outside) {
    const std::string bounds = BoundsText(options);
    findings.Add(value.path, absl::StrCat("is ", ScalarText(value)),
                 absl::StrCat("must be ", bounds.empty() ? "finite" : bounds));
  }
}

// Fields that must be said in a message that is present, and strings that must not be empty.
void CheckPresence(const Message& message, const std::string& path, Findings& findings) {
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    if (!field->options().GetExtension(must_be_set)) continue;
    const bool present = field->is_repeated() ? message.GetReflection()->FieldSize(message, field) > 0
                                              : message.GetReflection()->HasField(message, field);
    findings.AddUnless(present, FieldPath(path, *field, -1), "is not set",
                       "it changes what is computed and has no default: say it");
  }
}

}  // namespace

std::string PhasePath(int index) { return absl::StrCat("train.phase[", index, "]"); }

void ValidateSchema(const RunConfig& config, Findings& findings) {
  CheckPresence(config, "", findings);
  Walk(config, [&](const FieldValue& value) {
    if (value.field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      CheckPresence(SubMessage(value), value.path, findings);
    } else if (IsNumber(value.field)) {
      CheckBounds(value, findings);
    } else if (value.field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      const bool is_path = value.field.options().GetExtension(config::path);
      findings.AddUnless(!is_path || ScalarText(value) != "\"\"", value.path, "is empty", "give a path");
    }
    return true;
  });
}

std::vector<Problem> FindProblems(const RunConfig& config, const Locations& locations) {
  Findings findings(locations);
  ValidateSchema(config, findings);
  if (config.has_model()) ValidateModel(config.model(), findings);
  if (config.has_precision()) ValidatePrecision(config.precision(), findings);
  if (config.has_train()) ValidateTrain(config, findings);
  if (config.has_data()) ValidateData(config, findings);
  for (int i = 0; i < config.train().phase_size(); ++i) ValidatePhase(config, i, findings);
  return findings.Take();
}

absl::Status Validate(const RunConfig& config, const Locations& locations) {
  return ProblemsToStatus(FindProblems(config, locations));
}

}  // namespace shoestring::config
