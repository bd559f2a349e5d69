// The verbs `config ...`: print, validate, compare, explain, import and export run configs.
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file_system.h"
#include "configs/diff.h"
#include "configs/hf_config.h"
#include "configs/print.h"
#include "configs/reference.h"
#include "configs/resolve.h"
#include "google/protobuf/text_format.h"
#include "launch/exit_codes.h"
#include "launch/verbs.h"
#include "trainer/params.h"
#include "trainer/support.h"

namespace shoestring {
namespace {

constexpr int kDone = static_cast<int>(ExitCode::kDone);

std::string Grouped(int64_t number) {
  std::string text = absl::StrCat(number);
  for (int64_t i = static_cast<int64_t>(text.size()) - 3; i > 0; i -= 3) text.insert(text.begin() + i, ',');
  return text;
}

std::string ParameterText(const config::ModelConfig& model) {
  const ParameterCounts counts = CountParameters(model);
  std::string text;
  const auto line = [&](const char* what, int64_t number) {
    absl::StrAppendFormat(&text, "%-44s %20s\n", what, Grouped(number));
  };
  line("main model", counts.main_model);
  line("activated a token, without input embedding", counts.activated);
  line("activated a token, with it", counts.activated_with_embedding);
  line("unique to MTP", counts.mtp_unique);
  return text;
}

int RunPrint(const Values& values) {
  absl::StatusOr<config::LoadedConfig> loaded = LoadValidConfig(values);
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  config::RunConfig& run = loaded->config;
  if (values.count("parameters") > 0) {
    std::fputs(ParameterText(run.model()).c_str(), stdout);
    return kDone;
  }
  if (values.count("defaults") > 0) config::FillDefaults(run);
  std::fputs(config::CanonicalText(run).c_str(), stdout);
  return kDone;
}

int RunValidate(const Values& values) {
  const absl::StatusOr<config::LoadedConfig> loaded = LoadValidConfig(values);
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  std::printf("good: %s\nnumerics %s\nrun      %s\n", loaded->config.name().c_str(),
              config::NumericsHash(loaded->config).c_str(), config::RunHash(loaded->config).c_str());
  for (const std::string& reason : FindUnsupported(loaded->config)) {
    std::printf("'train' refuses it: %s\n", reason.c_str());
  }
  return kDone;
}

int RunDiff(const Values& values) {
  const Words files = ValueOr<Words>(values, "file", {});
  if (files.size() != 2) {
    return Fail(Area::kUsage, absl::InvalidArgumentError("config diff compares two files; see 'shoestring config diff "
                                                         "--help'"));
  }
  config::RunConfig sides[2];
  for (int i = 0; i < 2; ++i) {
    absl::StatusOr<config::LoadedConfig> loaded = config::LoadConfig(PosixFileSystem(), {files[i]}, {});
    if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
    sides[i] = std::move(loaded->config);
  }
  bool numerics = false;
  for (const config::Difference& difference : config::Diff(sides[0], sides[1])) {
    std::printf("%s\n", difference.ToString().c_str());
    numerics = numerics || difference.numerics;
  }
  return numerics ? static_cast<int>(ExitCode::kCheckFailed) : kDone;
}

int RunDocs(const Values&) {
  std::fputs(config::GenerateReference(config::SchemaDescriptors()).c_str(), stdout);
  return kDone;
}

int RunImport(const Values& values) {
  const std::string file = values["file"].as<std::string>();
  const absl::StatusOr<config::ModelConfig> model = config::LoadHfConfig(PosixFileSystem(), file);
  if (!model.ok()) return Fail(absl::IsInvalidArgument(model.status()) ? Area::kConfig : Area::kData, model.status());
  config::RunConfig run;
  *run.mutable_model() = *model;
  std::fputs(config::CanonicalText(run).c_str(), stdout);
  return kDone;
}

int RunExport(const Values& values) {
  const absl::StatusOr<config::LoadedConfig> loaded = LoadValidConfig(values);
  if (!loaded.ok()) return Fail(Area::kConfig, loaded.status());
  const config::TrainedModel trained = config::ModelAfter(loaded->config, loaded->config.train().phase_size());
  const absl::StatusOr<std::string> json =
      config::ExportHfConfig(trained.model, {.max_position_embeddings = trained.context_length});
  if (!json.ok()) return Fail(Area::kConfig, json.status());
  std::fputs(json->c_str(), stdout);
  return kDone;
}

void DeclareNothing(po::options_description&) {}

void DeclareFile(po::options_description& flags) {
  flags.add_options()("file", po::value<std::string>()->required()->value_name("FILE"), "config.json to read");
}

void DeclareFiles(po::options_description& flags) {
  flags.add_options()("file", po::value<Words>()->value_name("FILE"), "the two configs to compare");
}

void DeclarePrint(po::options_description& flags) {
  DeclareConfigFlags(flags);
  flags.add_options()("parameters", "print how many parameters the model has, instead of the config");
  flags.add_options()("defaults", "say every default");
}

}  // namespace

std::vector<Verb> ConfigVerbs() {
  return {
      {"config print", "print a config in canonical form, or its parameter counts",
       "--config FILE... [--set PATH=VALUE]... [--parameters | --defaults]",
       "Example:\n  shoestring config print --config configs/recipes/deepseek_v3_671b.textproto --parameters",
       DeclarePrint, "", RunPrint},
      {"config validate", "find everything that is wrong with a config", "--config FILE... [--set PATH=VALUE]...",
       "Problems are printed as file:line:col: field: problem; hint, all at once, and the exit code is 78. A good\n"
       "config gives its two hashes: runs with equal numerics hashes compute the same bits.\n\n"
       "Example:\n  shoestring config validate --config configs/recipes/tiny_cpu.textproto --set model.heads=8",
       DeclareConfigFlags, "", RunValidate},
      {"config diff", "say what differs between two configs", "FILE FILE",
       "A line a field: 'numerics' where it changes the result, 'run only' where it does not. Exit code 1 if any\n"
       "difference changes the result.\n\n"
       "Example:\n  shoestring config diff configs/recipes/tiny_cpu.textproto runs/quickstart/config.textproto",
       DeclareFiles, "file", RunDiff},
      {"config docs", "print the reference of all fields, as Markdown", "",
       "Example:\n  shoestring config docs > docs/config_reference.md", DeclareNothing, "", RunDocs},
      {"config import-hf", "turn a Hugging Face config.json into a model config", "FILE",
       "Example:\n  shoestring config import-hf config.json > model.textproto", DeclareFile, "file", RunImport},
      {"config export-hf", "print a model as a Hugging Face config.json", "--config FILE... [--set PATH=VALUE]...",
       "The model is the one that the last phase leaves, with its context extension.\n\n"
       "Example:\n  shoestring config export-hf --config configs/recipes/tiny_cpu.textproto > config.json",
       DeclareConfigFlags, "", RunExport},
  };
}

}  // namespace shoestring
