// What `train` does around the training loop: saves checkpoints, tells how it goes, watches the memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/file_system.h"
#include "configs/schema/run.pb.h"
#include "launch/run_log.h"
#include "trainer/checkpoint/manifest.pb.h"
#include "trainer/observe/step_metrics.h"
#include "trainer/trace.h"
#include "trainer/train_loop.h"

namespace shoestring {

// Saves when the loop says so, then removes what `checkpoint.keep` does not keep.
class CheckpointObserver final : public TrainObserver {
 public:
  // Of rank 0. `header` is that of RunHeader(). References outlive the observer.
  CheckpointObserver(FileSystem& fs, std::string directory, const config::RunConfig& config,
                     checkpoint::SnapshotHeader header, Trainer& trainer, RunLog& log);
  absl::Status OnCheckpointDue(const TrainState& state) override;

 private:
  FileSystem& fs_;
  const std::string directory_;
  const config::RunConfig& config_;
  const checkpoint::SnapshotHeader header_;
  Trainer& trainer_;
  RunLog& log_;
};

// Hands rank 0 this rank's part of what it saves.
class PartObserver final : public TrainObserver {
 public:
  PartObserver(FileSystem& fs, Trainer& trainer) : fs_(fs), trainer_(trainer) {}
  absl::Status OnCheckpointDue(const TrainState& state) override;

 private:
  FileSystem& fs_;
  Trainer& trainer_;
};

// Records the steps of a rank of several, and writes one of each start as a trace.
class TraceObserver final : public TrainObserver {
 public:
  // `directory` says where, once the run has begun. References outlive the observer, which outlives the training.
  TraceObserver(FileSystem& fs, Clock& clock, Trainer& trainer, std::function<std::string()> directory);
  absl::Status OnStep(const StepResult& result) override;
  void OnEnd(const absl::Status&, std::optional<StopReason>) override { trainer_.SetTrace(nullptr); }

 private:
  FileSystem& fs_;
  Trainer& trainer_;
  const std::function<std::string()> directory_;
  StepTrace trace_;
  int64_t steps_ = 0;  // of this start
};

// Remembers what the outcome of a run says.
class OutcomeObserver final : public TrainObserver {
 public:
  // `known`: of the step that the run goes on from; what the outcome says if nothing newer comes.
  explicit OutcomeObserver(const StepMetrics& known);
  absl::Status OnStep(const StepResult& result) override;
  absl::Status OnValidation(const ValidationResult& result) override;

  const std::optional<double>& loss() const { return loss_; }  // nats a token, of the last step
  const std::optional<ValidationResult>& validation() const { return validation_; }

 private:
  std::optional<double> loss_;
  std::optional<ValidationResult> validation_;
};

// Memory of the process that belongs to no file, in bytes; 0 where the system does not say.
int64_t PrivateMemoryBytes();

// How far the process grows beyond its arena.
class MemoryObserver final : public TrainObserver {
 public:
  // `before_bytes`: PrivateMemoryBytes() before the arenas of all ranks of the process, `arena_bytes` together, were
  // taken. `arena_bytes` must outlive this object.
  MemoryObserver(int64_t before_bytes, const std::atomic<int64_t>& arena_bytes)
      : before_bytes_(before_bytes), arena_bytes_(arena_bytes) {}
  absl::Status OnStep(const StepResult&) override { return Look(); }
  absl::Status OnValidation(const ValidationResult&) override { return Look(); }
  absl::Status OnCheckpointDue(const TrainState&) override { return Look(); }

  // "memory: arena 100.0 MiB; beyond it the process grew by 2.0 MiB (2.00 %)"; no share of a small arena, beside which
  // the program itself is large.
  std::string ToString() const;

 private:
  absl::Status Look();

  const int64_t before_bytes_;
  const std::atomic<int64_t>& arena_bytes_;  // other ranks may still add theirs
  int64_t most_bytes_ = 0;
};

}  // namespace shoestring
