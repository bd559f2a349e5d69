// Bodies of the observers.
#include "launch/run_observers.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/host_state.h"
#include "trainer/checkpoint/save.h"
#include "trainer/checkpoint/shared_state.h"
#include "trainer/checkpoint/train_state_io.h"
#include "trainer/observe/trace_file.h"

namespace shoestring {
namespace {

constexpr double kMib = 1 << 20;
constexpr int64_t kTracedStep = 3;  // buffers are warm

// One rank's state is written from where it lies, or from a copy if the host cannot read it there.
absl::StatusOr<SavedCheckpoint> SaveOf(FileSystem& fs, const std::string& directory,
                                       const checkpoint::SnapshotHeader& header, const TrainState& state,
                                       Trainer& trainer) {
  if (trainer.links().mesh.world_size() > 1) {
    return SaveShared(fs, directory, header, state, trainer.backend(), trainer.stream(), trainer.links());
  }
  ASSIGN_OR_RETURN(HostState host, HostState::Open(trainer.backend(), trainer.stream(), state));
  host.Bring();
  Snapshot snapshot{header, host.tensors()};
  SetPosition(state.position, snapshot.header);
  return SaveCheckpoint(fs, directory, snapshot);
}

}  // namespace

CheckpointObserver::CheckpointObserver(FileSystem& fs, std::string directory, const config::RunConfig& config,
                                       checkpoint::SnapshotHeader header, Trainer& trainer, RunLog& log)
    : fs_(fs),
      directory_(std::move(directory)),
      config_(config),
      header_(std::move(header)),
      trainer_(trainer),
      log_(log) {}

absl::Status CheckpointObserver::OnCheckpointDue(const TrainState& state) {
  const double start = RealClock().MonotonicSeconds();
  ASSIGN_OR_RETURN(const SavedCheckpoint saved, SaveOf(fs_, directory_, header_, state, trainer_));
  log_.Line(absl::StrFormat("saved %s, %.1f MiB in %.2f s, state %s", BaseName(saved.path), saved.size_bytes / kMib,
                            RealClock().MonotonicSeconds() - start, saved.state_digest));
  return PruneCheckpoints(fs_, directory_, config_.checkpoint().keep()).status();
}

absl::Status PartObserver::OnCheckpointDue(const TrainState& state) {
  return SaveShared(fs_, "", {}, state, trainer_.backend(), trainer_.stream(), trainer_.links()).status();
}

TraceObserver::TraceObserver(FileSystem& fs, Clock& clock, Trainer& trainer, std::function<std::string()> directory)
    : fs_(fs), trainer_(trainer), directory_(std::move(directory)), trace_(clock) {
  trace_.Listen(trainer.links());
  trainer.SetTrace(&trace_);
}

absl::Status TraceObserver::OnStep(const StepResult& result) {
  if (++steps_ != kTracedStep) return absl::OkStatus();
  const RankLinks& links = trainer_.links();
  TraceFacts facts;
  facts.rank = links.rank.value;
  facts.position = links.position();
  facts.data_index = links.mesh.DataIndexOf(links.rank);
  facts.step = result.position.step;
  return WriteTrace(fs_, directory_(), facts, trace_);
}

OutcomeObserver::OutcomeObserver(const StepMetrics& known) : loss_(known.loss) {
  if (!known.val_loss.has_value()) return;
  validation_.emplace();
  validation_->step = known.step;
  validation_->nats_per_token = *known.val_loss;
  validation_->bits_per_byte = known.val_bits_per_byte.value_or(0);
}

absl::Status OutcomeObserver::OnStep(const StepResult& result) {
  loss_ = result.loss;
  return absl::OkStatus();
}

absl::Status OutcomeObserver::OnValidation(const ValidationResult& result) {
  validation_ = result;
  return absl::OkStatus();
}

int64_t PrivateMemoryBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (absl::StartsWith(line, "RssAnon:")) return 1024 * std::strtoll(line.c_str() + 8, nullptr, 10);
  }
  return 0;
}

absl::Status MemoryObserver::Look() {
  most_bytes_ = std::max(most_bytes_, PrivateMemoryBytes());
  return absl::OkStatus();
}

std::string MemoryObserver::ToString() const {
  const int64_t arena_bytes = arena_bytes_;
  const int64_t beyond = std::max<int64_t>(0, most_bytes_ - before_bytes_ - arena_bytes);
  std::string text = absl::StrFormat("memory: arena %.1f MiB", arena_bytes / kMib);
  if (most_bytes_ == 0) return text;  // nothing was done
  absl::StrAppendFormat(&text, "; beyond it the process grew by %.1f MiB", beyond / kMib);
  constexpr double kLeastArenaMib = 64;
  if (arena_bytes / kMib < kLeastArenaMib) return text;
  return absl::StrCat(text, absl::StrFormat(" (%.2f %%)", 100.0 * beyond / arena_bytes));
}

}  // namespace shoestring
