// Body of --set: walks the path by reflection and parses the value as a config file would.
#include "configs/override.h"

#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "configs/load.h"
#include "configs/suggest.h"
#include "configs/walk.h"
#include "google/protobuf/descriptor.h"

namespace shoestring::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// "path=value" cut in its parts.
struct Override {
  std::string path;
  bool append = false;
  std::string value;
};

// A name of the path and its index, -1 when it has none.
struct Step {
  std::string name;
  int index = -1;
};

bool ParseOverride(absl::string_view text, Override& out) {
  const size_t equals = text.find('=');
  if (equals == absl::string_view::npos) return false;
  out.append = equals > 0 && text[equals - 1] == '+';
  out.path = std::string(absl::StripAsciiWhitespace(text.substr(0, equals - (out.append ? 1 : 0))));
  out.value = std::string(absl::StripAsciiWhitespace(text.substr(equals + 1)));
  return !out.path.empty();
}

bool ParseStep(absl::string_view text, Step& out) {
  const size_t bracket = text.find('[');
  out.name = std::string(text.substr(0, bracket));
  if (bracket == absl::string_view::npos) return !out.name.empty();
  absl::string_view index = text.substr(bracket + 1);
  if (out.name.empty() || !absl::ConsumeSuffix(&index, "]")) return false;
  return absl::SimpleAtoi(index, &out.index) && out.index >= 0;
}

// Why a step cannot be taken from `message`; an empty problem when it can.
Problem CheckStep(const Message& message, const Step& step, const std::string& path, bool last) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(step.name);
  if (field == nullptr) {
    return {"", path, absl::StrCat(message.GetDescriptor()->name(), " has no such field"),
            UnknownFieldHint(*message.GetDescriptor(), step.name)};
  }
  if (step.index >= 0 && !field->is_repeated()) return {"", path, "is not a list", "leave the index out"};
  if (step.index >= 0 && step.index >= message.GetReflection()->FieldSize(message, field)) {
    return {"", path, absl::StrCat("the list has ", message.GetReflection()->FieldSize(message, field), " elements"),
            "indices begin at 0; += appends"};
  }
  if (last) return {};
  if (field->message_type() == nullptr) return {"", path, "has no fields of its own", "end the path here"};
  if (field->is_repeated() && step.index < 0) return {"", path, "is a list", "say which element: [0]"};
  return {};
}

// The text of a field that holds the value, as a config file would say it.
std::string FieldText(const FieldDescriptor& field, const std::string& value) {
  const bool quoted = absl::StartsWith(value, "\"") || absl::StartsWith(value, "'") || absl::StartsWith(value, "[");
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING && !quoted) {
    return absl::StrCat(field.name(), ": \"", absl::Utf8SafeCEscape(value), "\"");
  }
  return absl::StrCat(field.name(), ": ", value);
}

// Parses the value into the one field of an empty message; adds a problem and returns null when it is not legal.
std::unique_ptr<Message> ParseValue(const Message& parent, const FieldDescriptor& field, const Override& set,
                                    std::vector<Problem>& problems) {
  std::unique_ptr<Message> parsed(parent.New());
  std::vector<Problem> found;
  ParseText(FieldText(field, set.value), "--set", *parsed, nullptr, found);
  std::vector<const FieldDescriptor*> fields;
  parsed->GetReflection()->ListFields(*parsed, &fields);
  const bool only_this = fields.size() == 1 && fields[0] == &field;
  if (found.empty() && !only_this && !(fields.empty() && field.is_repeated())) {
    found.push_back({"", "", absl::StrCat("\"", set.value, "\" is not one value"), "quote the argument in the shell"});
  }
  for (Problem& problem : found) {
    problem.place = absl::StrCat("--set ", set.path);
    problems.push_back(std::move(problem));
  }
  return found.empty() ? std::move(parsed) : nullptr;
}

// Replaces element `index` of a repeated field by the only element that `parsed` has of it.
void ReplaceElement(const FieldDescriptor& field, int index, Message& parsed, Message& parent) {
  std::unique_ptr<Message> old(parent.New());
  MoveField(field, parent, *old);
  std::unique_ptr<Message> result(parent.New());
  const Reflection* reflection = parent.GetReflection();
  const int size = reflection->FieldSize(*old, &field);
  result->CopyFrom(*old);
  result->MergeFrom(parsed);
  reflection->SwapElements(result.get(), &field, index, size);
  reflection->RemoveLast(result.get(), &field);
  MoveField(field, *result, parent);
}

// Sets, replaces, appends or unsets the field that the last step names.
void ApplyLast(const Step& step, const Override& set, Message& parent, Locations& locations,
               std::vector<Problem>& problems) {
  const FieldDescriptor& field = *parent.GetDescriptor()->FindFieldByName(step.name);
  const std::string place = absl::StrCat("--set ", set.path);
  if (set.append && (!field.is_repeated() || step.index >= 0)) {
    problems.push_back({place, "", "+= is for lists", "use ="});
    return;
  }
  if (set.value.empty() && !set.append && step.index < 0) {
    parent.GetReflection()->ClearField(&parent, &field);
    locations.Erase(set.path);
    return;
  }
  const std::unique_ptr<Message> parsed = ParseValue(parent, field, set, problems);
  if (parsed == nullptr) return;
  if (set.append) {
    parent.MergeFrom(*parsed);
    locations.Set(set.path, place);  // problems of what was appended name the nearest place around it: this
    return;
  }
  if (step.index < 0) {
    MoveField(field, *parsed, parent);
  } else if (parsed->GetReflection()->FieldSize(*parsed, &field) == 1) {
    ReplaceElement(field, step.index, *parsed, parent);
  } else {
    problems.push_back({place, "", "one element takes one value", ""});
    return;
  }
  locations.Erase(set.path);
  locations.Set(set.path, place);
}

}  // namespace

void ApplyOverride(absl::string_view text, RunConfig& config, Locations& locations, std::vector<Problem>& problems) {
  Override set;
  if (!ParseOverride(text, set)) {
    problems.push_back({"--set", "", absl::StrCat("\"", text, "\" is not path=value"), "as in train.seed=7"});
    return;
  }
  RunConfig changed = config;
  Message* message = &changed;
  const std::vector<std::string> names = absl::StrSplit(set.path, '.');
  for (size_t i = 0; i < names.size(); ++i) {
    const bool last = i + 1 == names.size();
    Step step;
    Problem problem;
    if (!ParseStep(names[i], step)) {
      problem = {"", names[i], "is not a name or name[index]", "as in train.phase[0].steps"};
    } else {
      problem = CheckStep(*message, step, names[i], last);
    }
    if (!problem.problem.empty()) {
      problem.place = absl::StrCat("--set ", set.path);
      problems.push_back(problem);
      return;
    }
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(step.name);
    if (last) {
      const size_t before = problems.size();
      ApplyLast(step, set, *message, locations, problems);
      if (problems.size() == before) config.Swap(&changed);
      return;
    }
    const Reflection* reflection = message->GetReflection();
    message = step.index < 0 ? reflection->MutableMessage(message, field)
                             : reflection->MutableRepeatedMessage(message, field, step.index);
  }
}

}  // namespace shoestring::config
