// The verb `ablate`: what a choice costs; of precisions, tensor by tensor (--numerics).
#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "google/protobuf/util/message_differencer.h"
#include "launch/checkpoint_place.h"
#include "launch/exit_codes.h"
#include "launch/run_data.h"
#include "launch/verbs.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/train_state_io.h"
#include "trainer/numerics/initial_weights.h"
#include "trainer/numerics/probe_report.h"
#include "trainer/schedule.h"

namespace shoestring {
namespace {

constexpr const char* kRunPreset = "run";
constexpr int64_t kMostSequences = 65536;

struct Request {
  std::string checkpoint;  // empty: initial weights of the config
  std::string text;        // empty: the config's shards
  std::string json;
  std::string report;
  std::vector<std::string> presets;
  int64_t sequences = 0;  // 0: the phase's micro-batch
  bool own_routing = false;
  int threads = 1;
};

// Where the weights come from, and the config that describes them.
struct Subject {
  std::unique_ptr<OpenedCheckpoint> checkpoint;  // null: initial weights
  config::RunConfig config;
  RunPosition position;
  std::string name;
};

// The text's tokens, one row behind the other.
class TextSource final : public TokenSource {
 public:
  TextSource(std::vector<int32_t> tokens, int64_t row_tokens) : tokens_(std::move(tokens)), row_tokens_(row_tokens) {}
  int64_t row_tokens() const override { return row_tokens_; }
  absl::Status Fill(int64_t first_sample, int64_t samples, int32_t* tokens) override {
    const int64_t begin = first_sample * row_tokens_, end = begin + samples * row_tokens_;
    if (end > static_cast<int64_t>(tokens_.size())) {
      return absl::OutOfRangeError(absl::StrCat("has ", tokens_.size(), " tokens, but ", end,
                                                " are wanted; take a longer text, or fewer --sequences"));
    }
    std::copy(tokens_.begin() + begin, tokens_.begin() + end, tokens);
    return absl::OkStatus();
  }
  std::string Description() const override { return "text"; }

 private:
  const std::vector<int32_t> tokens_;
  const int64_t row_tokens_;
};

absl::Status OpenSubject(const std::string& place, Subject& subject) {
  subject.name = "initial weights";
  if (place.empty()) return absl::OkStatus();
  FileSystem& fs = PosixFileSystem();
  ASSIGN_OR_RETURN(subject.name, CheckpointAt(fs, place));
  ASSIGN_OR_RETURN(OpenedCheckpoint opened, OpenCheckpoint(fs, subject.name));
  subject.checkpoint = std::make_unique<OpenedCheckpoint>(std::move(opened));
  subject.position = PositionOf(subject.checkpoint->header());
  return absl::OkStatus();
}

absl::Status ReadConfig(const Values& values, Subject& subject) {
  config::LoadedConfig loaded;
  if (subject.checkpoint == nullptr) {
    ASSIGN_OR_RETURN(loaded, LoadValidConfig(values));
  } else {
    ASSIGN_OR_RETURN(
        loaded, config::ParseConfig(subject.checkpoint->header().config_textproto(),
                                    absl::StrCat(subject.name, ": its config"), ValueOr<Words>(values, "set", {})));
    RETURN_IF_ERROR(config::Validate(loaded.config, loaded.locations));
  }
  subject.config = std::move(loaded.config);
  return absl::OkStatus();
}

// The step that follows the weights; of a run that is over, like its last phase's first.
StepPlan PlanOf(const Subject& subject, int64_t sequences) {
  const Schedule schedule(subject.config);
  RunPosition position = subject.position;
  if (schedule.Done(position)) {
    position.phase = schedule.phases() - 1;
    position.phase_step = position.phase_tokens = position.phase_sequences = 0;
  }
  StepPlan plan = schedule.PlanStep(position);
  if (sequences > 0) plan.micro_batch = sequences;
  return plan;
}

absl::StatusOr<HostBatch> ReadBatch(const Request& request, const config::RunConfig& config, const StepPlan& plan,
                                    std::string& description) {
  FileSystem& fs = PosixFileSystem();
  const BatchShape shape = ProbeBatchShape(config, plan);
  HostBatch batch;
  if (!request.text.empty()) {
    ASSIGN_OR_RETURN(const Tokenizer tokenizer, OpenTokenizer(fs, config));
    ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, request.text));
    absl::StatusOr<std::vector<int32_t>> tokens = tokenizer.Encode(text);
    if (!tokens.ok()) return WithContext(tokens.status(), request.text);
    TextSource source(*std::move(tokens), shape.row_tokens());
    const absl::Status status = PrepareBatch(source, shape, SampleRuns::One(0, plan.micro_batch), batch);
    if (!status.ok()) return WithContext(status, request.text);
    description = request.text;
    return batch;
  }
  ASSIGN_OR_RETURN(const RunData data, OpenRunData(fs, config));
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenSource> source, data.data.training(plan.phase));
  RETURN_IF_ERROR(PrepareBatch(*source, shape, SampleRuns::One(plan.first_sample, plan.micro_batch), batch));
  description = absl::StrCat("from sample ", plan.first_sample, " of phase ", plan.phase);
  return batch;
}

absl::StatusOr<std::vector<PrecisionPreset>> ChoosePresets(const Request& request, const config::RunConfig& config) {
  using google::protobuf::util::MessageDifferencer;
  const PrecisionPreset own{kRunPreset, "as the run's config says", config.precision()};
  std::vector<PrecisionPreset> presets;
  for (const std::string& text : request.presets) {
    if (text == kRunPreset) {
      presets.push_back(own);
    } else {
      ASSIGN_OR_RETURN(presets.emplace_back(), ParsePrecisionPreset(text));
    }
  }
  std::set<std::string> names;
  for (const PrecisionPreset& preset : presets) {
    if (names.insert(preset.name).second) continue;
    return absl::InvalidArgumentError(absl::StrCat("--preset ", preset.name, ": is there twice"));
  }
  if (!presets.empty()) return presets;
  presets = AllPrecisionPresets();
  const auto is_own = [&](const PrecisionPreset& preset) {
    return MessageDifferencer::Equals(preset.precision, own.precision);
  };
  const bool is_fp8 = own.precision.mode() == config::PrecisionConfig::FP8;
  if (is_fp8 && std::none_of(presets.begin(), presets.end(), is_own)) presets.insert(presets.begin(), own);
  return presets;
}

absl::Status WriteOutputs(const Request& request, const ProbeResult& result, const ProbeSubject& subject) {
  FileSystem& fs = PosixFileSystem();
  std::fputs(ProbeTable(result, subject).c_str(), stdout);
  if (!request.json.empty()) RETURN_IF_ERROR(WriteFileDurably(fs, request.json, ProbeJson(result, subject)));
  if (request.report.empty()) return absl::OkStatus();
  return WriteFileDurably(fs, request.report, ProbePage(result, subject));
}

int Probe(const Request& request, const Subject& subject) {
  const absl::StatusOr<std::vector<PrecisionPreset>> presets = ChoosePresets(request, subject.config);
  if (!presets.ok()) return Fail(Area::kUsage, presets.status());
  for (const PrecisionPreset& preset : *presets) {
    const absl::Status legal = ConfigInPrecision(subject.config, preset).status();
    if (!legal.ok()) return Fail(Area::kConfig, legal);
  }
  ProbeSubject description{subject.name, subject.position.step, ""};
  const StepPlan plan = PlanOf(subject, request.sequences);
  const absl::StatusOr<HostBatch> batch = ReadBatch(request, subject.config, plan, description.data);
  if (!batch.ok()) return Fail(Area::kData, batch.status());
  const auto read_weights = [&](const std::vector<StateTensor>& tensors) -> absl::Status {
    if (subject.checkpoint == nullptr) return WriteInitialWeights(subject.config, request.threads, tensors);
    return ReadState(PosixFileSystem(), *subject.checkpoint, tensors, Coverage::kPart);
  };
  const absl::StatusOr<ProbeResult> result =
      RunProbe({subject.config, plan, *presets, request.own_routing, request.threads}, *batch, read_weights);
  if (!result.ok()) return Fail(Area::kData, result.status());
  const absl::Status written = WriteOutputs(request, *result, description);
  return written.ok() ? static_cast<int>(ExitCode::kDone) : Fail(Area::kData, written);
}

absl::Status CheckFlags(const Values& values, Request& request) {
  if (values.count("numerics") == 0) {
    return absl::InvalidArgumentError(
        "'ablate' compares precisions with --numerics; runs that differ in their config come in a later version");
  }
  if ((values.count("config") > 0) != request.checkpoint.empty()) {
    return absl::InvalidArgumentError("'ablate --numerics' needs one of --checkpoint and --config");
  }
  ASSIGN_OR_RETURN(request.threads, ReadThreads(values));
  if (request.sequences < 0) return absl::InvalidArgumentError("--sequences is negative; 0 takes the micro-batch");
  if (request.sequences > kMostSequences) {
    return absl::InvalidArgumentError(absl::StrCat("--sequences is ", request.sequences, "; every tensor of one ",
                                                   "micro-batch is kept, so take ", kMostSequences, " or fewer"));
  }
  return absl::OkStatus();
}

int Run(const Values& values) {
  Request request;
  request.checkpoint = ValueOr<std::string>(values, "checkpoint", "");
  request.text = ValueOr<std::string>(values, "text", "");
  request.json = ValueOr<std::string>(values, "json", "");
  request.report = ValueOr<std::string>(values, "report", "");
  request.presets = ValueOr<Words>(values, "preset", {});
  request.sequences = values["sequences"].as<int64_t>();
  request.own_routing = values.count("own-routing") > 0;
  const absl::Status flags = CheckFlags(values, request);
  if (!flags.ok()) return Fail(Area::kUsage, flags);
  Subject subject;
  const absl::Status opened = OpenSubject(request.checkpoint, subject);
  if (!opened.ok()) return Fail(Area::kData, opened);
  const absl::Status config = ReadConfig(values, subject);
  if (!config.ok()) return Fail(Area::kConfig, config);
  return Probe(request, subject);
}

void Declare(po::options_description& flags) {
  auto add = flags.add_options();
  add("numerics", "every tensor of one forward and backward pass in several precisions against FP32");
  add("checkpoint", po::value<std::string>()->value_name("DIR"), "a checkpoint, or a run: its newest one");
  add("config", po::value<Words>()->composing()->value_name("FILE"),
      "instead of --checkpoint: initial weights; a later file overrides an earlier one");
  add("set", po::value<Words>()->composing()->value_name("PATH=VALUE"), "of the config, or the checkpoint's config");
  add("preset", po::value<Words>()->composing()->value_name("NAME"),
      "a precision; may be repeated; absent: all. NAME:path=value,...: the report's recipe with fields of 'precision' "
      "set anew; run: as the run's config says");
  add("text", po::value<std::string>()->value_name("FILE"), "tokens of this text; absent: the run's next ones");
  add("sequences", po::value<int64_t>()->default_value(0)->value_name("N"), "0: a micro-batch of the phase");
  add("own-routing", "each precision sends tokens where it will, not where FP32 did");
  add("json", po::value<std::string>()->value_name("FILE"), "also write all numbers");
  add("report", po::value<std::string>()->value_name("FILE"), "also write a page with curves and tables");
  DeclareThreads(flags, "0: one a core; changes no number");
}

}  // namespace

Verb AblateVerb() {
  std::string presets;
  for (const PrecisionPreset& preset : AllPrecisionPresets()) {
    absl::StrAppend(&presets, "  ", preset.name, std::string(16 - std::min<size_t>(15, preset.name.size()), ' '),
                    preset.summary, "\n");
  }
  return {"ablate",
          "measure what a precision does to each tensor",
          "--numerics --checkpoint DIR [--preset NAME]... [--json FILE] [--report FILE]",
          absl::StrCat("Signal to noise, saturation and underflow, without the noise of training: the same weights and "
                       "tokens,\none forward and one backward pass a preset. Presets:\n",
                       presets,
                       "\nExample:\n  shoestring ablate --numerics --checkpoint runs/first --preset bf16 --preset fp8 "
                       "\\\n      --preset mine:fp8.gradient_format=E5M2 --report numerics.html"),
          Declare,
          "",
          Run};
}

}  // namespace shoestring
