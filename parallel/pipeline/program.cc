// Printing and parsing of schedule programs.
#include "parallel/pipeline/program.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

struct KindName {
  ActionKind kind;
  const char* name;
};
// Longer names first, so that a prefix never hides one.
constexpr KindName kNames[] = {
    {ActionKind::kSendForward, "SF"},     {ActionKind::kReceiveForward, "RF"}, {ActionKind::kSendBackward, "SB"},
    {ActionKind::kReceiveBackward, "RB"}, {ActionKind::kForward, "F"},         {ActionKind::kBackward, "B"},
    {ActionKind::kBackwardInput, "I"},    {ActionKind::kBackwardWeight, "W"},  {ActionKind::kReduce, "G"},
};

const char* NameOf(ActionKind kind) {
  for (const KindName& entry : kNames) {
    if (entry.kind == kind) return entry.name;
  }
  return "F";  // kOverlapped is printed as its two halves
}

// Digits at the front of `text`, which moves on; false if there are none or too many, or a leading zero.
bool ConsumeNumber(absl::string_view* text, int64_t* value) {
  size_t digits = 0;
  while (digits < text->size() && (*text)[digits] >= '0' && (*text)[digits] <= '9') ++digits;
  if (digits == 0 || digits > 9 || (digits > 1 && (*text)[0] == '0')) return false;
  if (!absl::SimpleAtoi(text->substr(0, digits), value)) return false;
  text->remove_prefix(digits);
  return true;
}

bool ConsumeWork(absl::string_view* text, Work* work) {
  int64_t stage = 0;
  if (!ConsumeNumber(text, &stage) || !absl::ConsumePrefix(text, ".") || !ConsumeNumber(text, &work->micro_batch)) {
    return false;
  }
  work->stage = StageId(static_cast<int>(stage));
  work->direction = Direction(absl::ConsumePrefix(text, "'") ? 1 : 0);
  return true;
}

bool ConsumeKind(absl::string_view* text, ActionKind* kind) {
  for (const KindName& entry : kNames) {
    if (absl::ConsumePrefix(text, entry.name)) {
      *kind = entry.kind;
      return true;
    }
  }
  return false;
}

bool ConsumeAction(absl::string_view text, Action* action) {
  if (!ConsumeKind(&text, &action->kind)) return false;
  int64_t number = 0;
  if (action->kind == ActionKind::kReduce) {
    if (!ConsumeNumber(&text, &number)) return false;
    action->work.stage = StageId(static_cast<int>(number));
    return text.empty();
  }
  if (!ConsumeWork(&text, &action->work)) return false;
  if (IsSend(action->kind) || IsReceive(action->kind)) {
    if (!absl::ConsumePrefix(&text, IsSend(action->kind) ? ">" : "<") || !ConsumeNumber(&text, &number)) return false;
    action->peer = static_cast<int>(number);
  } else if (action->kind == ActionKind::kForward && absl::ConsumePrefix(&text, "+B")) {
    action->kind = ActionKind::kOverlapped;
    if (!ConsumeWork(&text, &action->paired)) return false;
  }
  return text.empty();
}

}  // namespace

bool IsSend(ActionKind kind) { return kind == ActionKind::kSendForward || kind == ActionKind::kSendBackward; }
bool IsReceive(ActionKind kind) { return kind == ActionKind::kReceiveForward || kind == ActionKind::kReceiveBackward; }

Parts PartsOf(const Action& action) {
  switch (action.kind) {
    case ActionKind::kForward: return {nullptr, nullptr, &action.work};
    case ActionKind::kBackward: return {&action.work, &action.work, nullptr};
    case ActionKind::kBackwardInput: return {&action.work, nullptr, nullptr};
    case ActionKind::kBackwardWeight: return {nullptr, &action.work, nullptr};
    case ActionKind::kOverlapped: return {&action.paired, &action.paired, &action.work};
    default: return {};
  }
}

Work Neighbour(const Work& work, int step) {
  return {StageId(work.stage.value + step), work.micro_batch, work.direction};
}

std::string ToString(const Work& work) {
  return absl::StrCat(work.stage.value, ".", work.micro_batch, work.direction.value == 1 ? "'" : "");
}

std::string ToString(const Action& action) {
  if (action.kind == ActionKind::kReduce) return absl::StrCat("G", action.work.stage.value);
  std::string text = absl::StrCat(NameOf(action.kind), ToString(action.work));
  if (action.kind == ActionKind::kOverlapped) absl::StrAppend(&text, "+B", ToString(action.paired));
  if (IsSend(action.kind)) absl::StrAppend(&text, ">", action.peer);
  if (IsReceive(action.kind)) absl::StrAppend(&text, "<", action.peer);
  return text;
}

std::string ToString(const Program& program) {
  std::string text;
  for (size_t p = 0; p < program.positions.size(); ++p) {
    absl::StrAppend(&text, p, ":");
    for (const Action& action : program.positions[p]) absl::StrAppend(&text, " ", ToString(action));
    absl::StrAppend(&text, "\n");
  }
  return text;
}

absl::StatusOr<Action> ParseAction(absl::string_view word) {
  Action action;
  if (!ConsumeAction(word, &action)) return absl::InvalidArgumentError(absl::StrCat("no action: '", word, "'"));
  return action;
}

absl::StatusOr<Program> ParseProgram(absl::string_view text) {
  Program program;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    line = line.substr(0, line.find('#'));
    const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    const std::string expected = absl::StrCat(program.positions.size(), ":");
    if (words[0] != expected) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line_number, ": expected '", expected, "', found '", words[0], "'"));
    }
    std::vector<Action>& actions = program.positions.emplace_back();
    for (size_t i = 1; i < words.size(); ++i) {
      absl::StatusOr<Action> action = ParseAction(words[i]);
      if (!action.ok()) return WithContext(action.status(), absl::StrCat("line ", line_number));
      actions.push_back(*action);
    }
  }
  return program;
}

}  // namespace shoestring
