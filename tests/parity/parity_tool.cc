// Our side of the parity harness: weights, logits, gradients, steps and samples as files and JSON lines that the Python
// drivers compare with other programs' (docs/parity.md).
#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "launch/run_data.h"
#include "nlohmann/json.hpp"
#include "tests/parity/session.h"
#include "trainer/export/import_hf.h"
#include "trainer/schedule.h"
#include "trainer/support.h"

namespace shoestring {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

struct Options {
  std::string verb;
  std::vector<std::string> configs;
  std::vector<std::string> overrides;
  std::string hf;       // directory of weights; empty: as the config's seed makes them
  std::string samples;  // file of int32 rows
  std::string out;
  int64_t count = 0;  // of steps or samples
  int threads = 2;
  bool validation = false;
  bool on_demand = false;
  std::string dtype = "f32";
  bool power_of_two_scales = false;
};

FileSystem& Fs() { return PosixFileSystem(); }

absl::Status WriteRaw(const std::string& path, const void* data, size_t bytes) {
  return WriteFile(Fs(), path, absl::string_view(static_cast<const char*>(data), bytes));
}

// Without samples: one row of zeros, for what reads no tokens.
absl::StatusOr<std::vector<int32_t>> ReadSamples(const Options& options, const config::RunConfig& config) {
  if (options.samples.empty()) {
    return std::vector<int32_t>(config.train().phase(0).sequence_length() + 1 + config.model().mtp_depth());
  }
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(Fs(), options.samples));
  std::vector<int32_t> samples(bytes.size() / sizeof(int32_t));
  std::copy(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(samples.size() * sizeof(int32_t)),
            reinterpret_cast<char*>(samples.data()));
  return samples;
}

// A config without a model takes that of the weights.
absl::StatusOr<config::RunConfig> Load(const Options& options) {
  ASSIGN_OR_RETURN(config::LoadedConfig loaded, config::LoadConfig(Fs(), options.configs, options.overrides));
  if (!loaded.config.has_model() && !options.hf.empty()) {
    ASSIGN_OR_RETURN(*loaded.config.mutable_model(), ReadHfModel(Fs(), options.hf));
  }
  RETURN_IF_ERROR(config::Validate(loaded.config, loaded.locations));
  RETURN_IF_ERROR(CheckSupported(loaded.config));
  return std::move(loaded.config);
}

absl::StatusOr<std::unique_ptr<ParitySession>> MakeSession(const Options& options, const config::RunConfig& config) {
  ASSIGN_OR_RETURN(std::vector<int32_t> samples, ReadSamples(options, config));
  config::RunConfig plain = config;
  plain.mutable_train()->clear_validation();
  ASSIGN_OR_RETURN(std::unique_ptr<ParitySession> session,
                   ParitySession::Create(plain, std::move(samples), options.threads));
  if (!options.hf.empty()) RETURN_IF_ERROR(session->ImportWeights(options.hf));
  return session;
}

// What another program must know to train likewise, step by step.
void PrintSettings(const config::RunConfig& config) {
  const config::AdamWConfig& adamw = config.train().adamw();
  const Schedule schedule(config);
  Json steps = Json::array();
  for (RunPosition at; !schedule.Done(at);) {
    const StepPlan plan = schedule.PlanStep(at);
    steps.push_back({{"learning_rate", plan.learning_rate},
                     {"sequences", plan.sequences},
                     {"bias_speed", plan.bias_speed},
                     {"mtp_weight", plan.mtp_weight},
                     {"balance_alpha", plan.balance_alpha}});
    at = schedule.Advance(at, plan);
  }
  const config::Phase& phase = config.train().phase(0);
  const Json settings = {
      {"name", config.name()},
      {"sequence_length", phase.sequence_length()},
      {"micro_batch", phase.micro_batch()},
      {"mtp_depth", config.model().mtp_depth()},
      {"vocab_size", config.model().vocab_size()},
      {"eos_id", config.model().eos_id()},
      {"seed", config.train().seed()},
      {"mode", config::PrecisionConfig::Mode_Name(config.precision().mode())},
      {"beta1", adamw.beta1()},
      {"beta2", adamw.beta2()},
      {"eps", adamw.eps()},
      {"weight_decay", adamw.weight_decay()},
      {"clip_norm", config.train().clip_norm()},
      {"validation_sequences", config.train().validation().sequences()},
      {"steps", steps},
  };
  std::cout << settings.dump() << std::endl;
}

absl::Status WriteLogits(const Options& options, const config::RunConfig& config) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ParitySession> session, MakeSession(options, config));
  ASSIGN_OR_RETURN(const std::vector<float> logits, session->Logits());
  return WriteRaw(options.out, logits.data(), logits.size() * sizeof(float));
}

// One JSON line a step; on demand: after a line on standard input for each, so that a driver can take turns.
absl::Status TakeSteps(const Options& options, const config::RunConfig& config) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ParitySession> session, MakeSession(options, config));
  std::string line;
  for (int64_t i = 0; i < options.count; ++i) {
    if (options.on_demand && !std::getline(std::cin, line)) break;
    ASSIGN_OR_RETURN(const StepResult* result, session->Step());
    const Json step = {{"step", result->position.step},
                       {"loss", result->loss},
                       {"loss_mtp", result->loss_mtp},
                       {"loss_balance", result->loss_balance},
                       {"grad_norm", result->grad_norm},
                       {"bias_abs_max", result->bias_abs_max},
                       {"seconds", result->times.total_s},
                       {"learning_rate", result->plan.learning_rate},
                       {"optimizer_s", result->times.optimizer_s}};
    std::cout << step.dump() << std::endl;
  }
  return absl::OkStatus();
}

// The samples of the run's own data, as training or validation reads them.
absl::Status WriteSamples(const Options& options, const config::RunConfig& config) {
  ASSIGN_OR_RETURN(const RunData run, OpenRunData(Fs(), config));
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenSource> source,
                   options.validation ? run.data.validation(0) : run.data.training(0));
  int64_t count = options.count;
  if (options.validation && run.data.validation_samples > 0) count = std::min(count, run.data.validation_samples);
  std::vector<int32_t> samples(count * source->row_tokens());
  RETURN_IF_ERROR(source->Fill(0, count, samples.data()));
  return WriteRaw(options.out, samples.data(), samples.size() * sizeof(int32_t));
}

absl::Status WriteWeights(const Options& options, ParitySession& session) {
  const std::map<std::string, DType> dtypes = {{"f32", DType::kF32}, {"bf16", DType::kBF16}, {"fp8", DType::kE4M3}};
  const auto dtype = dtypes.find(options.dtype);
  if (dtype == dtypes.end()) return absl::InvalidArgumentError("--dtype is f32, bf16 or fp8");
  return session.ExportWeights(options.out,
                               {.dtype = dtype->second, .power_of_two_scales = options.power_of_two_scales});
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const config::RunConfig config, Load(options));
  if (options.verb == "settings") {
    PrintSettings(config);
    return absl::OkStatus();
  }
  if (options.verb == "samples") return WriteSamples(options, config);
  if (options.verb == "logits") return WriteLogits(options, config);
  if (options.verb == "steps") return TakeSteps(options, config);
  ASSIGN_OR_RETURN(const std::unique_ptr<ParitySession> session, MakeSession(options, config));
  if (options.verb == "weights") return WriteWeights(options, *session);
  if (options.verb == "gradients") return session->ExportGradients(options.out);
  return absl::InvalidArgumentError(
      absl::StrCat("unknown verb ", options.verb, "; settings, samples, weights, logits, gradients or steps"));
}

int Main(int argc, char** argv) {
  Options options;
  po::options_description flags("parity_tool VERB: settings, samples, weights, logits, gradients or steps of a config");
  flags.add_options()("help", "this text");
  flags.add_options()("verb", po::value(&options.verb), "may stand alone");
  flags.add_options()("config", po::value(&options.configs)->composing(), "config file; several are merged");
  flags.add_options()("set", po::value(&options.overrides)->composing(), "path=value");
  flags.add_options()("hf", po::value(&options.hf), "directory of weights; else as the seed makes them");
  flags.add_options()("samples", po::value(&options.samples), "file of int32 rows");
  flags.add_options()("out", po::value(&options.out), "file or directory to write");
  flags.add_options()("count", po::value(&options.count), "of steps or samples");
  flags.add_options()("threads", po::value(&options.threads), "threads (2)");
  flags.add_options()("validation", po::bool_switch(&options.validation), "samples of the validation shard");
  flags.add_options()("on-demand", po::bool_switch(&options.on_demand), "a step for each line on standard input");
  flags.add_options()("dtype", po::value(&options.dtype), "of written weights: f32, bf16 or fp8 (f32)");
  flags.add_options()("power-of-two-scales", po::bool_switch(&options.power_of_two_scales), "of fp8");
  try {
    po::positional_options_description positional;
    positional.add("verb", 1);
    po::variables_map values;
    po::store(po::command_line_parser(argc, argv).options(flags).positional(positional).run(), values);
    po::notify(values);
    if (values.count("help") > 0 || options.configs.empty() || options.verb.empty() || options.threads < 1) {
      std::ostringstream text;
      text << flags;
      std::fputs(text.str().c_str(), stdout);
      return values.count("help") > 0 ? 0 : 64;
    }
  } catch (const po::error& error) {
    std::fprintf(stderr, "parity_tool: %s\n", error.what());
    return 64;
  }
  const absl::Status status = Run(options);
  if (!status.ok()) std::fprintf(stderr, "parity_tool: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) { return shoestring::Main(argc, argv); }
