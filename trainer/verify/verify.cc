// Two worlds side by side, in step.
#include "trainer/verify/verify.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "configs/print.h"
#include "configs/resolve.h"
#include "parallel/pipeline/check.h"
#include "trainer/checkpoint/digest.h"
#include "trainer/support.h"
#include "trainer/thread_ranks.h"
#include "trainer/verify/meeting.h"

namespace shoestring {
namespace {

std::string HexSha256(absl::string_view bytes) { return absl::BytesToHexString(Sha256::Of(bytes)); }

absl::StatusOr<std::string> HashOfData(const TrainData& data) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenSource> source, data.training(0));
  return HexSha256(source->Description());
}

// A trainer that takes a step at a time, and what the step left.
class Stepper {
 public:
  static absl::StatusOr<std::unique_ptr<Stepper>> Create(const config::RunConfig& config, const TrainData& data,
                                                         absl::StatusOr<std::unique_ptr<Backend>> backend, Clock& clock,
                                                         std::optional<RankLinks> links) {
    RETURN_IF_ERROR(backend.status());
    auto stepper = std::make_unique<Stepper>();
    stepper->backend_ = *std::move(backend);
    if (links.has_value()) links = LinksOf(*stepper->backend_, *std::move(links));
    stepper->clock_ = &clock;
    // As many threads as ranks are enough.
    const TrainOptions options{.prefetch = false};
    ASSIGN_OR_RETURN(stepper->trainer_,
                     Trainer::Create(config, data, *stepper->backend_, clock, options, std::move(links)));
    return stepper;
  }

  absl::Status Step() {
    const int64_t start = clock_->MonotonicNanos();
    ASSIGN_OR_RETURN(step_, trainer_->CurrentStep());
    ASSIGN_OR_RETURN(const StepResult* result, trainer_->Step());
    seconds_ += static_cast<double>(clock_->MonotonicNanos() - start) * 1e-9;
    plan_ = result->plan;
    parts_ = PartsOfStep(trainer_->state(), *backend_, trainer_->stream(), trainer_->links(), *result,
                         step_->gradients(), scalars_);
    return absl::OkStatus();
  }

  const StepParts& parts() const { return parts_; }
  const std::vector<Action>& executed() const { return step_->executed(); }
  const StepPlan& plan() const { return plan_; }
  std::vector<StepTensor> ListTensors() const { return ListStepTensors(trainer_->state()); }
  double seconds() const { return seconds_; }
  int64_t arena_bytes() const { return trainer_->arena_bytes(); }

 private:
  std::unique_ptr<Backend> backend_;
  Clock* clock_ = nullptr;
  std::unique_ptr<Trainer> trainer_;
  TrainStep* step_ = nullptr;
  StepPlan plan_;
  StepScalars scalars_;
  StepParts parts_;
  double seconds_ = 0;
};

std::vector<Golden::Tensor> DigestsOf(const std::vector<StepTensor>& list, const WholeTensors& whole) {
  std::vector<Golden::Tensor> digests;
  for (size_t i = 0; i < list.size(); ++i) {
    digests.push_back({list[i].full_name(), whole.Sha256Of(static_cast<int>(i))});
  }
  return digests;
}

absl::Status CheckSteps(const config::RunConfig& config, int64_t steps) {
  const int64_t total = Schedule(config).TotalSteps();
  if (steps <= total) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("train.phase: has ", total, " steps, ", steps, " are to be compared"));
}

absl::Status CheckGolden(const config::RunConfig& config, const std::string& data, const VerifyOptions& options) {
  const Golden& golden = *options.golden;
  if (golden.numerics != config::NumericsHash(config)) {
    return absl::DataLossError("was made from a config with other numerics; make one from this config");
  }
  if (golden.data != data) return absl::DataLossError("was made from other data; make one from these shards");
  if (golden.instruction_set != options.instruction_set) {
    return absl::DataLossError(absl::StrCat("was made with ", golden.instruction_set, ", this is ",
                                            options.instruction_set, ", whose sums have other bits"));
  }
  const auto steps = static_cast<int64_t>(golden.steps.size());
  if (steps >= options.steps) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("has ", steps, " steps, ", options.steps, " are to be compared"));
}

absl::Status CheckNames(const std::vector<StepTensor>& list, const std::vector<Golden::Tensor>& golden) {
  for (size_t i = 0; i < std::max(list.size(), golden.size()); ++i) {
    const std::string here = i < list.size() ? list[i].full_name() : "nothing";
    const std::string there = i < golden.size() ? golden[i].name : "nothing";
    if (here == there) continue;
    return absl::DataLossError(absl::StrCat("has ", there, " where ", here, " is; make it anew with this version"));
  }
  return absl::OkStatus();
}

// What the threads share. They meet three times a step: when all have their tensors, when the whole is put together,
// and when all have compared.
class Comparison {
 public:
  Comparison(const config::RunConfig& config, const TrainData& data, Clock& clock, const VerifyOptions& options,
             Mesh mesh, std::string data_hash)
      : config_(config),
        data_(data),
        clock_(clock),
        options_(options),
        mesh_(std::move(mesh)),
        meeting_(mesh_.world_size() + (options.golden == nullptr ? 1 : 0)),
        parts_(mesh_.world_size()),
        actions_(mesh_.world_size()) {
    report_.ranks = mesh_.world_size();
    if (options.record) {
      report_.recorded.emplace();
      report_.recorded->numerics = config::NumericsHash(config);
      report_.recorded->instruction_set = options.instruction_set;
      report_.recorded->data = std::move(data_hash);
    }
  }

  absl::StatusOr<VerifyReport> Run() {
    const int64_t start = clock_.MonotonicNanos();
    absl::Status reference;
    std::thread thread;
    if (options_.golden == nullptr) {
      thread = std::thread([&] { reference = LeaveIfFailed(RunReference()); });
    }
    const absl::Status ranks =
        RunThreadRanks(mesh_, [this](RankLinks links) { return LeaveIfFailed(RunRank(std::move(links))); });
    if (!ranks.ok()) meeting_.Leave();  // if there was no thread for a rank, it could not
    if (thread.joinable()) thread.join();
    // Who has only lost the others is not to blame.
    const bool lost_others = absl::IsUnavailable(ranks) && !absl::IsUnavailable(reference);
    if (!reference.ok() && (ranks.ok() || lost_others)) return WithContext(reference, "one rank");
    RETURN_IF_ERROR(ranks);
    RETURN_IF_ERROR(CheckExecuted());
    KeepFirsts();
    report_.seconds = static_cast<double>(clock_.MonotonicNanos() - start) * 1e-9;
    return std::move(report_);
  }

 private:
  absl::Status LeaveIfFailed(absl::Status status) {
    if (!status.ok()) meeting_.Leave();
    return status;
  }

  absl::Status RunReference() {
    ASSIGN_OR_RETURN(
        const std::unique_ptr<Stepper> one,
        Stepper::Create(OnOneRank(config_), data_, options_.make_backend(std::nullopt), clock_, std::nullopt));
    const std::vector<StepTensor> list = one->ListTensors();
    report_.reference_arena_bytes = one->arena_bytes();
    for (int64_t step = 1; step <= options_.steps && !different_; ++step) {
      RETURN_IF_ERROR(one->Step());
      RETURN_IF_ERROR(expected_.Assemble(list, {&one->parts()}));
      report_.reference_seconds = one->seconds();
      if (options_.record) report_.recorded->steps.push_back(DigestsOf(list, expected_));
      for (int i = 0; i < 3; ++i) RETURN_IF_ERROR(meeting_.Meet());
    }
    return absl::OkStatus();
  }

  absl::Status RunRank(RankLinks links) {
    const Rank rank = links.rank;
    ASSIGN_OR_RETURN(const std::unique_ptr<Stepper> stepper,
                     Stepper::Create(config_, data_, options_.make_backend(rank), clock_, std::move(links)));
    arena_bytes_ += stepper->arena_bytes();
    for (int64_t step = 1; step <= options_.steps && !different_; ++step) {
      RETURN_IF_ERROR(stepper->Step());
      parts_[rank.value] = &stepper->parts();
      actions_[rank.value] = stepper->executed();
      RETURN_IF_ERROR(meeting_.Meet());
      if (rank == Rank(0)) RETURN_IF_ERROR(PutTogether(*stepper, step));
      RETURN_IF_ERROR(meeting_.Meet());
      Compare(step, rank);
      RETURN_IF_ERROR(meeting_.Meet());
    }
    return absl::OkStatus();
  }

  // On rank 0, while the others wait.
  absl::Status PutTogether(const Stepper& stepper, int64_t step) {
    report_.list = stepper.ListTensors();
    report_.tensors = static_cast<int64_t>(report_.list.size());
    report_.steps = step;
    report_.step_seconds = stepper.seconds();
    micro_batches_ = stepper.plan().micro_batches() / mesh_.data_ranks() / mesh_.directions();
    WholeTensors& whole = options_.golden == nullptr ? spoken_ : expected_;
    RETURN_IF_ERROR(whole.Assemble(report_.list, parts_));
    if (options_.golden != nullptr) return CheckNames(report_.list, options_.golden->steps[step - 1]);
    return absl::OkStatus();
  }

  void Compare(int64_t step, Rank rank) {
    std::vector<Difference> found = CompareParts(parts_[rank.value]->kept, expected_, step, rank);
    int64_t bytes = 0;
    for (const TensorPart& part : parts_[rank.value]->kept) bytes += part.view.bytes();
    if (options_.golden != nullptr) CompareDigests(step, rank, found);
    const std::lock_guard<std::mutex> lock(mutex_);
    report_.bytes += bytes;
    if (!found.empty()) different_ = true;
    report_.differences.insert(report_.differences.end(), found.begin(), found.end());
  }

  // Ranks share the tensors. A digest says nothing of elements: the first rank that speaks for the tensor is named.
  void CompareDigests(int64_t step, Rank rank, std::vector<Difference>& found) {
    const std::vector<Golden::Tensor>& golden = options_.golden->steps[step - 1];
    for (int i = rank.value; i < static_cast<int>(golden.size()); i += mesh_.world_size()) {
      if (expected_.Sha256Of(i) == golden[i].sha256) continue;
      Difference difference{.step = step, .tensor = i, .element = -1, .rank = rank};
      for (int r = mesh_.world_size() - 1; r >= 0; --r) {
        for (const TensorPart& part : parts_[r]->spoken) {
          if (part.tensor == i) difference.rank = Rank(r);
        }
      }
      found.push_back(difference);
    }
  }

  // What the ranks ran is one program, and the checker finds it right.
  absl::Status CheckExecuted() {
    Program program;
    for (int p = 0; p < mesh_.pipeline_ranks(); ++p) {
      program.positions.push_back(actions_[mesh_.RankAt(p, 0).value]);
      for (int d = 1; d < mesh_.data_ranks(); ++d) {
        const Rank rank = mesh_.RankAt(p, d);
        if (actions_[rank.value] == program.positions.back()) continue;
        return absl::InternalError(absl::StrCat("rank ", rank.value, " ran other actions than rank ",
                                                mesh_.RankAt(p, 0).value, " at the same position"));
      }
    }
    const absl::Status right = CheckProgram(program, mesh_, std::vector<int64_t>(mesh_.directions(), micro_batches_));
    if (!right.ok()) return absl::InternalError(absl::StrCat("the program that ran is wrong: ", right.message()));
    report_.program_hash = HexSha256(ToString(program));
    report_.arena_bytes = arena_bytes_;
    return absl::OkStatus();
  }

  // Of each tensor the first difference of all ranks.
  void KeepFirsts() {
    std::vector<Difference>& all = report_.differences;
    std::sort(all.begin(), all.end(), ComesBefore);
    const auto same = [](const Difference& a, const Difference& b) { return a.step == b.step && a.tensor == b.tensor; };
    all.erase(std::unique(all.begin(), all.end(), same), all.end());
  }

  const config::RunConfig& config_;
  const TrainData& data_;
  Clock& clock_;
  const VerifyOptions& options_;
  const Mesh mesh_;
  Meeting meeting_;
  WholeTensors expected_;                     // the reference's; with a golden what the ranks speak for
  WholeTensors spoken_;                       // to see that no element is left out
  std::vector<const StepParts*> parts_;       // of each rank
  std::vector<std::vector<Action>> actions_;  // of each rank, in the last step
  int64_t micro_batches_ = 0;                 // of a pipeline and direction, in the last step
  std::atomic<bool> different_{false};        // changes between the second and the third meeting alone
  std::atomic<int64_t> arena_bytes_{0};
  std::mutex mutex_;  // of the report's sums and differences
  VerifyReport report_;
};

}  // namespace

config::RunConfig OnlyPhase(const config::RunConfig& config, int phase) {
  config::RunConfig only = config;
  *only.mutable_layout() = config::ResolvePhase(config, phase).layout;
  only.mutable_train()->clear_phase();
  *only.mutable_train()->add_phase() = config.train().phase(phase);
  only.mutable_train()->mutable_phase(0)->clear_layout();
  return only;
}

config::RunConfig OnOneRank(const config::RunConfig& config) {
  config::RunConfig one = config;
  const config::LayoutConfig::Device device = one.layout().device();
  one.mutable_layout()->Clear();
  one.mutable_layout()->set_device(device);
  for (config::Phase& phase : *one.mutable_train()->mutable_phase()) phase.clear_layout();
  return one;
}

absl::StatusOr<VerifyReport> VerifyLayout(const config::RunConfig& config, const TrainData& data, Clock& clock,
                                          const VerifyOptions& options) {
  RETURN_IF_ERROR(CheckSupported(config));
  RETURN_IF_ERROR(CheckSteps(config, options.steps));
  ASSIGN_OR_RETURN(std::string data_hash, HashOfData(data));
  if (options.golden != nullptr) RETURN_IF_ERROR(CheckGolden(config, data_hash, options));
  ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(config::ResolvePhase(config, 0).layout));
  return Comparison(config, data, clock, options, std::move(mesh), std::move(data_hash)).Run();
}

absl::StatusOr<Golden> RecordGolden(const config::RunConfig& config, const TrainData& data, Clock& clock,
                                    const VerifyOptions& options) {
  const config::RunConfig one_rank = OnOneRank(config);
  RETURN_IF_ERROR(CheckSupported(one_rank));
  RETURN_IF_ERROR(CheckSteps(config, options.steps));
  Golden golden;
  golden.numerics = config::NumericsHash(config);
  golden.instruction_set = options.instruction_set;
  ASSIGN_OR_RETURN(golden.data, HashOfData(data));
  ASSIGN_OR_RETURN(const std::unique_ptr<Stepper> one,
                   Stepper::Create(one_rank, data, options.make_backend(std::nullopt), clock, std::nullopt));
  const std::vector<StepTensor> list = one->ListTensors();
  WholeTensors whole;
  for (int64_t step = 1; step <= options.steps; ++step) {
    RETURN_IF_ERROR(one->Step());
    RETURN_IF_ERROR(whole.Assemble(list, {&one->parts()}));
    golden.steps.push_back(DigestsOf(list, whole));
  }
  return golden;
}

}  // namespace shoestring
