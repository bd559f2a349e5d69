// Parsing of flags; what the parser throws stops here and becomes a status.
#include "launch/flags.h"

#include <algorithm>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "configs/suggest.h"
#include "configs/validate.h"

namespace shoestring {
namespace {

po::options_description Describe(const Verb& verb) {
  po::options_description flags("flags", 100);
  verb.declare(flags);
  flags.add_options()("help,h", "print this and exit");
  return flags;
}

std::vector<std::string> Names(const po::options_description& flags) {
  std::vector<std::string> names;
  for (const auto& option : flags.options()) names.push_back("--" + option->long_name());
  return names;
}

absl::Status Usage(const Verb& verb, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(problem, "; see 'shoestring ", verb.name, " --help'"));
}

absl::Status UnknownFlag(const Verb& verb, const po::options_description& flags, const std::string& word) {
  const std::string nearest = config::Nearest(word.substr(0, word.find('=')), Names(flags));
  const std::string hint = nearest.empty() ? "" : absl::StrCat(", did you mean ", nearest, "?");
  return Usage(verb, absl::StrCat("unknown flag ", word, hint));
}

// What the parser says of a word that stands without a flag: by the name that the first line of --help gives it.
std::string WithoutFlagName(const Verb& verb, const po::options_description& flags, const std::string& message) {
  if (verb.positional.empty()) return message;
  const std::string name = flags.find(verb.positional, false).format_parameter();
  return absl::StrReplaceAll(message,
                             {{absl::StrCat("option '--", verb.positional, "'"), absl::StrCat("word ", name)}});
}

// Boost reads -1 as 2^64 - 1 where a flag's value has no sign.
absl::Status RefuseNegative(const Verb& verb, const po::options_description& flags, const po::parsed_options& parsed) {
  for (const po::option& option : parsed.options) {
    const po::value_semantic* semantic = flags.find(option.string_key, false).semantic().get();
    if (dynamic_cast<const po::typed_value<uint64_t>*>(semantic) == nullptr) continue;
    for (const std::string& value : option.value) {
      if (!absl::StartsWith(value, "-")) continue;
      return Usage(verb, absl::StrCat("--", option.string_key, " ", value, ": is negative; say 0 or more"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Values> ParseFlags(const Verb& verb, const Words& words) {
  const po::options_description flags = Describe(verb);
  po::positional_options_description positional;
  if (!verb.positional.empty()) positional.add(verb.positional.c_str(), -1);
  // Abbreviated flags would change their meaning with every flag that is added.
  constexpr int kStyle = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  Values values;
  try {
    const auto parsed = po::command_line_parser(words).options(flags).positional(positional).style(kStyle).run();
    RETURN_IF_ERROR(RefuseNegative(verb, flags, parsed));
    po::store(parsed, values);
    if (values.count("help") == 0) po::notify(values);
  } catch (const po::unknown_option& e) {
    return UnknownFlag(verb, flags, e.get_option_name());
  } catch (const po::too_many_positional_options_error&) {
    const auto stray = std::find_if(words.begin(), words.end(), [](const std::string& w) { return w[0] != '-'; });
    return Usage(verb, absl::StrCat("a word without a flag", stray == words.end() ? "" : ": '" + *stray + "'"));
  } catch (const po::error& e) {
    return Usage(verb, WithoutFlagName(verb, flags, e.what()));
  }
  return values;
}

std::string HelpText(const Verb& verb) {
  std::ostringstream flags;
  flags << Describe(verb);
  return absl::StrCat("shoestring ", verb.name, " ", verb.synopsis, "\n\n", verb.summary, "\n\n",
                      absl::StripAsciiWhitespace(verb.details), "\n\n", flags.str());
}

void DeclareConfigFlags(po::options_description& flags) {
  flags.add_options()("config", po::value<Words>()->multitoken()->required()->value_name("FILE..."),
                      "run config, protobuf text; later files replace what earlier ones say");
  flags.add_options()("set", po::value<Words>()->composing()->value_name("PATH=VALUE"),
                      "replace one field, e.g. train.phase[0].steps=100; may be given many times");
}

absl::StatusOr<config::LoadedConfig> LoadValidConfig(const Values& values) {
  ASSIGN_OR_RETURN(config::LoadedConfig loaded, config::LoadConfig(PosixFileSystem(), values["config"].as<Words>(),
                                                                   ValueOr<Words>(values, "set", {})));
  RETURN_IF_ERROR(config::Validate(loaded.config, loaded.locations));
  return loaded;
}

void DeclareThreads(po::options_description& flags, const char* what) {
  flags.add_options()("threads", po::value<int>()->default_value(0)->value_name("N"), what);
}

absl::StatusOr<int> ReadThreads(const Values& values) {
  const int threads = values["threads"].as<int>();
  if (threads >= 0) return ThreadsOrCores(threads);
  return absl::InvalidArgumentError(absl::StrCat("--threads ", threads, ": is negative; 0 takes one a core"));
}

int ThreadsOrCores(int64_t threads) {
  constexpr int64_t kMostThreads = 1024;
  if (threads > 0) return static_cast<int>(std::min(threads, kMostThreads));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace shoestring
