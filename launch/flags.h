// What a verb of the command line is, and how its words become typed values: Boost.Program_options with our messages.
#pragma once

#include <boost/program_options.hpp>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "configs/load.h"

namespace shoestring {

namespace po = boost::program_options;
using Values = po::variables_map;
using Words = std::vector<std::string>;

struct Verb {
  std::string name;      // "data prepare": one word or two
  std::string summary;   // a line
  std::string synopsis;  // behind the name in the first line of --help
  std::string details;   // paragraphs and examples of --help
  std::function<void(po::options_description& flags)> declare;
  std::string positional;  // the flag that words without a flag belong to; empty: there are none
  // Gives the exit code.
  std::function<int(const Values& values)> run;
};

// INVALID_ARGUMENT, one line: an unknown flag with the nearest known one, a missing or malformed value, a flag that
// must be given and is not.
absl::StatusOr<Values> ParseFlags(const Verb& verb, const Words& words);

// What --help prints.
std::string HelpText(const Verb& verb);

// Declares --config and --set.
void DeclareConfigFlags(po::options_description& flags);
// Reads, overrides and validates the config that those two name. INVALID_ARGUMENT, a line a problem (Area::kConfig).
absl::StatusOr<config::LoadedConfig> LoadValidConfig(const Values& values);

// The value of a flag; the fallback where it was not given.
template <typename T>
T ValueOr(const Values& values, const char* flag, T fallback) {
  return values.count(flag) > 0 ? values[flag].as<T>() : fallback;
}

// --threads; INVALID_ARGUMENT if it is negative.
void DeclareThreads(po::options_description& flags, const char* what);
absl::StatusOr<int> ReadThreads(const Values& values);

// Threads to use where a flag or a config says 0: one a core.
int ThreadsOrCores(int64_t threads);

}  // namespace shoestring
