// The verbs `train` and `resume`.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "launch/exit_codes.h"
#include "launch/run_directory.h"
#include "launch/training.h"
#include "launch/verbs.h"

namespace shoestring {
namespace {

// "90s", "50m", "1h30m".
absl::StatusOr<int64_t> ParseSeconds(const std::string& text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < absl::Seconds(1) || duration > absl::Hours(24 * 365)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--exit-after ", text, ": is no duration; say 90s, 50m or 1h30m (at least 1s)"));
  }
  return absl::ToInt64Seconds(duration);
}

absl::Status ReadCommonFlags(const Values& values, TrainRequest& request) {
  request.run_directory = values["run-dir"].as<std::string>();
  if (request.run_directory.empty()) return absl::InvalidArgumentError("--run-dir is empty; name a directory");
  request.max_steps = values["max-steps"].as<int64_t>();
  if (request.max_steps < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--max-steps ", request.max_steps, ": is negative; 0 is no limit"));
  }
  if (values.count("exit-after") == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(request.exit_after_seconds, ParseSeconds(values["exit-after"].as<std::string>()));
  return absl::OkStatus();
}

absl::Status ReadOnExisting(const Values& values, TrainRequest& request) {
  const std::string word = values["on-existing"].as<std::string>();
  if (word != "fail" && word != "resume") {
    return absl::InvalidArgumentError(absl::StrCat("--on-existing ", word, ": is neither fail nor resume"));
  }
  request.start = word == "resume" ? Start::kEither : Start::kFresh;
  return absl::OkStatus();
}

int RunTrain(const Values& values) {
  TrainRequest request;
  absl::Status flags = ReadCommonFlags(values, request);
  if (flags.ok()) flags = ReadOnExisting(values, request);
  if (!flags.ok()) return Fail(Area::kUsage, flags);
  absl::StatusOr<config::LoadedConfig> loaded = LoadValidConfig(values);
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  request.config = std::move(loaded->config);
  return RunTraining(request);
}

int RunResume(const Values& values) {
  TrainRequest request;
  const absl::Status flags = ReadCommonFlags(values, request);
  if (!flags.ok()) return Fail(Area::kUsage, flags);
  const std::string path = ConfigPath(request.run_directory);
  if (!HoldsRun(PosixFileSystem(), request.run_directory)) {
    return Fail(Area::kRun,
                absl::NotFoundError(absl::StrCat(request.run_directory,
                                                 ": holds no run (no config.textproto); check --run-dir, or "
                                                 "start one with 'train'")));
  }
  absl::StatusOr<config::LoadedConfig> loaded =
      config::LoadConfig(PosixFileSystem(), {path}, ValueOr<Words>(values, "set", {}));
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  const absl::Status valid = config::Validate(loaded->config, loaded->locations);
  if (!valid.ok()) return Fail(Area::kConfig, valid);
  request.config = std::move(loaded->config);
  request.start = Start::kContinue;
  request.go_back = values.count("go-back") > 0;
  return RunTraining(request);
}

void DeclareCommon(po::options_description& flags) {
  auto add = flags.add_options();
  add("run-dir", po::value<std::string>()->required()->value_name("DIR"), "where everything of the run is written");
  add("exit-after", po::value<std::string>()->value_name("TIME"), "save and exit with 75 after 90s, 50m, 1h30m");
  add("max-steps", po::value<int64_t>()->default_value(0)->value_name("N"),
      "save and stop when the run has done N steps; 0: no limit");
}

void DeclareTrain(po::options_description& flags) {
  DeclareConfigFlags(flags);
  DeclareCommon(flags);
  flags.add_options()("on-existing", po::value<std::string>()->default_value("fail")->value_name("fail|resume"),
                      "what to do where a run is already");
}

void DeclareResume(po::options_description& flags) {
  DeclareCommon(flags);
  auto add = flags.add_options();
  add("set", po::value<Words>()->composing()->value_name("PATH=VALUE"),
      "replace one field of the run's config, if that changes no number");
  add("go-back", "pass over bad checkpoints to an older good one");
}

constexpr char kStops[] =
    "SIGTERM, SIGHUP, SIGUSR1 and SIGINT finish the step, save and exit with 75; a second SIGINT ends at once.\n\n";

}  // namespace

std::vector<Verb> TrainVerbs() {
  return {
      {"train", "train a model as a config says", "--config FILE... [--set PATH=VALUE]... --run-dir DIR",
       absl::StrCat("Everything is checked before anything is written. ", kStops,
                    "Example:\n  shoestring train --config configs/recipes/tiny_cpu.textproto --run-dir runs/first"),
       DeclareTrain, "", RunTrain},
      {"resume", "continue a run from its newest checkpoint, to the bit", "--run-dir DIR [--set PATH=VALUE]...",
       absl::StrCat("Never starts from scratch. What differs from the run so far is printed; what would change the\n"
                    "numbers is refused (exit code 78). ",
                    kStops, "Example:\n  shoestring resume --run-dir runs/first"),
       DeclareResume, "", RunResume},
  };
}

}  // namespace shoestring
