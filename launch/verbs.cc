// The table of verbs and the choice among them.
#include "launch/verbs.h"

#include <cstdio>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "configs/suggest.h"
#include "launch/exit_codes.h"

namespace shoestring {
namespace {

std::string FirstWord(const std::string& name) { return name.substr(0, name.find(' ')); }

std::string Overview() {
  std::string text =
      "shoestring VERB [flags]\n\nTrains DeepSeek-V3-shaped mixture-of-experts language models.\n\nverbs\n";
  for (const Verb& verb : AllVerbs()) absl::StrAppendFormat(&text, "  %-24s %s\n", verb.name, verb.summary);
  absl::StrAppend(&text,
                  "\n'shoestring VERB --help' explains one, 'shoestring --version' says which version this is.\n"
                  "Exit codes: 0 done; 1 the check said no; 64 usage; 65 bad data; 70 internal; 74 file or disk;\n"
                  "75 saved, start again; 78 bad config; 79 stopped on purpose; 128+n signal n.\n");
  return text;
}

int Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  return static_cast<int>(ExitCode::kDone);
}

int FailUsage(const std::string& problem) { return Fail(Area::kUsage, absl::InvalidArgumentError(problem)); }

bool AsksForHelp(const std::string& word) { return word == "--help" || word == "-h"; }

// "data --help": the verbs of two words that begin with this one; empty if there are none.
std::string GroupText(const std::string& first) {
  std::string text;
  for (const Verb& verb : AllVerbs()) {
    if (FirstWord(verb.name) == first && verb.name != first) {
      absl::StrAppendFormat(&text, "  %-24s %s\n", verb.name, verb.summary);
    }
  }
  if (text.empty()) return text;
  return absl::StrCat("shoestring ", first, " VERB [flags]\n\nverbs\n", text, "\n'shoestring ", first,
                      " VERB --help' explains one.\n");
}

int UnknownVerb(const Words& words) {
  std::set<std::string> first_words;
  std::vector<std::string> second_words;
  for (const Verb& verb : AllVerbs()) {
    first_words.insert(FirstWord(verb.name));
    const std::string second = verb.name == FirstWord(verb.name) ? "" : verb.name.substr(verb.name.find(' ') + 1);
    if (FirstWord(verb.name) == words[0] && !second.empty()) second_words.push_back(second);
  }
  if (second_words.empty()) {
    const std::string nearest = config::Nearest(words[0], {first_words.begin(), first_words.end()});
    const std::string hint = nearest.empty() ? "" : absl::StrCat(", did you mean '", nearest, "'?");
    return FailUsage(absl::StrCat("unknown verb '", words[0], "'", hint, "; see 'shoestring --help'"));
  }
  const std::string choices = absl::StrJoin(second_words, ", ");
  if (words.size() < 2 || words[1][0] == '-') {
    return FailUsage(absl::StrCat("'", words[0], "' needs one of: ", choices));
  }
  const std::string nearest = config::Nearest(words[1], second_words);
  const std::string hint = nearest.empty() ? "" : absl::StrCat(", did you mean '", nearest, "'?");
  return FailUsage(absl::StrCat("unknown verb '", words[0], " ", words[1], "'", hint, "; there are: ", choices));
}

int RunVerb(const Verb& verb, const Words& words) {
  const absl::StatusOr<Values> values = ParseFlags(verb, words);
  if (!values.ok()) return Fail(Area::kUsage, values.status());
  if (values->count("help") > 0) return Print(HelpText(verb));
  return verb.run(*values);
}

}  // namespace

std::vector<Verb> AllVerbs() {
  std::vector<Verb> verbs;
  const auto add = [&](std::vector<Verb> more) {
    for (Verb& verb : more) verbs.push_back(std::move(verb));
  };
  add(TrainVerbs());
  add(ReportVerbs());
  add({AblateVerb(), GenerateVerb(), TokenizerTrainVerb()});
  add(DataVerbs());
  add(CheckpointVerbs());
  add(ConfigVerbs());
  add({ScheduleVerb(), VerifyVerb(), DoctorVerb()});
  return verbs;
}

int RunCommandLine(const Words& words) {
  if (words.empty()) return FailUsage("no verb; see 'shoestring --help'");
  if (words[0] == "help" && words.size() > 1) {
    Words asked(words.begin() + 1, words.end());
    asked.push_back("--help");
    return RunCommandLine(asked);
  }
  if (AsksForHelp(words[0]) || words[0] == "help") return Print(Overview());
  if (words[0] == "--version") return Print("shoestring " SHOESTRING_VERSION "\n");
  if (words[0].empty()) return FailUsage("the verb is empty; see 'shoestring --help'");
  for (const Verb& verb : AllVerbs()) {
    const Words name = absl::StrSplit(verb.name, ' ');
    if (words.size() < name.size() || !std::equal(name.begin(), name.end(), words.begin())) continue;
    return RunVerb(verb, Words(words.begin() + static_cast<int64_t>(name.size()), words.end()));
  }
  const std::string group = words.size() > 1 && AsksForHelp(words[1]) ? GroupText(words[0]) : "";
  return group.empty() ? UnknownVerb(words) : Print(group);
}

}  // namespace shoestring
