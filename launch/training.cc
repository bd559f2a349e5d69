// A start of a run, step by step.
#include "launch/training.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "configs/resolve.h"
#include "kernels/cpu/gemm_peak.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/timing_backend.h"
#include "launch/exit_codes.h"
#include "launch/flags.h"
#include "launch/run_backend.h"
#include "launch/run_data.h"
#include "launch/run_directory.h"
#include "launch/run_header.h"
#include "launch/run_log.h"
#include "launch/run_observers.h"
#include "launch/signals.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/host_state.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/shared_state.h"
#include "trainer/checkpoint/train_state_io.h"
#include "trainer/nan_guard.h"
#include "trainer/observe/report.h"
#include "trainer/observe/run_facts.h"
#include "trainer/observe/run_observer.h"
#include "trainer/observe/step_metrics.h"
#include "trainer/observe/summary.h"
#include "trainer/observe/trace_file.h"
#include "trainer/support.h"
#include "trainer/thread_ranks.h"
#include "trainer/train_loop.h"

namespace shoestring {
namespace {

constexpr int kRoundsAtStart = 5, kRoundsBetweenSteps = 1;  // of measuring the peak

// Everything that a start holds; members in the order of their needs. What a rank of its own has is rank 0's, on whose
// thread it is made and used.
struct Session {
  FileSystem& fs = PosixFileSystem();
  std::unique_ptr<StopRequests> stop_requests;
  RunData data;
  int threads = 1;         // of a rank
  double peak_gflops = 0;  // of a rank's matrix products, measured at the start
  int64_t memory_before = 0;
  std::atomic<int64_t> arena_bytes{0};  // of all ranks
  std::unique_ptr<RunLock> lock;
  std::string checkpoints;
  std::optional<OpenedCheckpoint> from;
  StepMetrics known;  // of the step that it goes on from, where the metrics have it
  std::vector<std::string> notes;

  RunBackend device;
  std::unique_ptr<TimingBackend> timed;  // of a CPU; a GPU has not finished when a call returns, and is not timed so
  std::unique_ptr<Trainer> trainer;
  int64_t generation = 0;
  std::unique_ptr<RunLog> log;
  checkpoint::SnapshotHeader header;
  int exit_code = 0;  // what rank 0 says, if no rank fails
};

absl::Status RefuseExisting(const TrainRequest& request, FileSystem& fs) {
  if (request.start != Start::kFresh || !HoldsRun(fs, request.run_directory)) return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(request.run_directory, ": holds a run already; 'shoestring resume --run-dir ", request.run_directory,
                   "' continues it, --on-existing resume does too and begins anew where there is no checkpoint yet, ",
                   "another --run-dir starts a new one"));
}

int RanksOf(const TrainRequest& request) { return static_cast<int>(config::WorldSize(request.config.layout())); }

// The machine's cores are shared by the ranks, which are threads of this process.
int ThreadsOfRank(const TrainRequest& request) {
  const int64_t threads = request.config.layout().threads_per_rank();
  return threads > 0 ? ThreadsOrCores(threads) : std::max(1, ThreadsOrCores(0) / RanksOf(request));
}

// GFLOP/s of large matrix products, the best of `rounds` of some ten milliseconds.
double MeasurePeak(const TrainRequest& request, int rounds) {
  ThreadPool pool(ThreadsOfRank(request));
  CpuGemm gemm(&pool, request.isa);
  const GemmPeak peak = MeasureGemmPeak(gemm, rounds);
  return request.config.precision().mode() == config::PrecisionConfig::FP32 ? peak.f32_gflops : peak.bf16_gflops;
}

// All that can be refused without a trace.
absl::Status Prepare(const TrainRequest& request, Session& session) {
  RETURN_IF_ERROR(RefuseExisting(request, session.fs));
  ASSIGN_OR_RETURN(session.data, OpenRunData(session.fs, request.config));
  Backend& device = *session.device.backend;
  session.peak_gflops = device.memory_is_hosts() ? MeasurePeak(request, kRoundsAtStart) : MeasureDevicePeak(device);
  session.memory_before = PrivateMemoryBytes();
  return absl::OkStatus();
}

// Takes the directories. Another process may have been faster since Prepare looked.
absl::Status Claim(const TrainRequest& request, Session& session) {
  session.checkpoints = CheckpointDirectory(request.run_directory, request.config);
  ASSIGN_OR_RETURN(session.lock, RunLock::Take(session.fs, request.run_directory, session.checkpoints));
  RETURN_IF_ERROR(RefuseExisting(request, session.fs));
  // What a run that begins here meets there is another's, whatever it would do with its own.
  const bool begins = request.start == Start::kFresh || !HoldsRun(session.fs, request.run_directory);
  return begins ? RefuseCheckpoints(session.fs, session.checkpoints) : absl::OkStatus();
}

// Whether what a run wrote about itself says that it had a checkpoint: a start that ended without failing saved last,
// one that never ended tells the step that it went on from, and a step after the first interval comes after its save.
bool RecordsCheckpoint(const TrainRequest& request, FileSystem& fs) {
  const absl::StatusOr<Summary> summary = ReadSummary(fs, request.run_directory);
  if (summary.ok() && !absl::StartsWith(summary->exit_reason, "failed") &&
      (summary->exit_reason != "running" || summary->steps > 0)) {
    return true;
  }
  const absl::StatusOr<MetricsFile> metrics = ReadMetrics(fs, JoinPath(request.run_directory, "metrics.jsonl"));
  const int64_t interval = request.config.checkpoint().interval_steps();
  return interval > 0 && metrics.ok() && !metrics->rows.empty() && metrics->rows.back().step > interval;
}

absl::StatusOr<std::optional<OpenedCheckpoint>> FindStart(const TrainRequest& request, Session& session,
                                                          std::vector<std::string>& passed_over) {
  if (request.start == Start::kFresh) return std::nullopt;
  absl::StatusOr<OpenedCheckpoint> found = request.go_back
                                               ? FindNewestGood(session.fs, session.checkpoints, passed_over)
                                               : FindNewest(session.fs, session.checkpoints);
  if (found.ok()) return std::optional<OpenedCheckpoint>(*std::move(found));
  if (!absl::IsNotFound(found.status())) return found.status();
  if (RecordsCheckpoint(request, session.fs)) {
    return absl::FailedPreconditionError(
        absl::StrCat(session.checkpoints, ": holds no checkpoint, but ", request.run_directory,
                     " says that one was saved; mount or restore that directory, or begin anew in another --run-dir"));
  }
  if (request.start == Start::kEither) return std::nullopt;
  return found.status();
}

// What the run goes on from, if anything, and what is said about it. `area`: of the failure.
absl::Status ChooseStart(const TrainRequest& request, Session& session, Area& area) {
  ASSIGN_OR_RETURN(session.from, FindStart(request, session, session.notes));
  if (!session.from.has_value()) return absl::OkStatus();
  const checkpoint::SnapshotHeader now = RunHeader(request.config, session.data, 0, session.device.instruction_set);
  absl::StatusOr<std::vector<std::string>> harmless = CompareRuns(session.from->header(), now);
  if (!harmless.ok()) {
    area = Area::kConfig;
    return harmless.status();
  }
  for (const std::string& difference : *harmless) session.notes.push_back("differs, harmless: " + difference);
  if (const auto warning = InstructionSetWarning(session.from->header(), now)) session.notes.push_back(*warning);
  return RanksOf(request) > 1 ? VerifyFiles(session.fs, *session.from) : absl::OkStatus();
}

// A start with nothing left to do repeats nothing that is written already.
StepMetrics KnownOf(const TrainRequest& request, Session& session) {
  if (!session.from.has_value()) return {};
  const absl::StatusOr<MetricsFile> metrics = ReadMetrics(session.fs, JoinPath(request.run_directory, "metrics.jsonl"));
  if (!metrics.ok()) return {};
  for (const StepMetrics& row : metrics->rows) {
    if (row.step == session.from->header().step()) return row;
  }
  return {};
}

// Of several ranks each; rank 0 has begun the attempt before the first step is done.
std::unique_ptr<TraceObserver> TraceOf(const TrainRequest& request, Session& session, Trainer& trainer) {
  if (RanksOf(request) == 1) return nullptr;
  auto observer = std::make_unique<TraceObserver>(session.fs, RealClock(), trainer, [&request, &session] {
    return TraceDirectory(JoinPath(request.run_directory, AttemptName(session.generation)));
  });
  trainer.AddObserver(*observer);
  return observer;
}

absl::StatusOr<std::unique_ptr<Trainer>> MakeTrainer(const TrainRequest& request, Session& session, Backend& backend,
                                                     std::optional<RankLinks> links) {
  TrainOptions options;
  options.threads = session.threads;
  options.max_steps = request.max_steps;
  options.stop = &session.stop_requests->stop();
  if (session.known.val_loss.has_value()) options.validated_step = session.known.step;
  ASSIGN_OR_RETURN(std::unique_ptr<Trainer> trainer,
                   Trainer::Create(request.config, session.data.data, backend, RealClock(), options, std::move(links)));
  session.arena_bytes += trainer->arena_bytes();
  return trainer;
}

absl::Status Restore(Session& session, Trainer& trainer) {
  if (!session.from.has_value()) return absl::OkStatus();
  TrainState& state = trainer.state();
  if (trainer.links().mesh.world_size() > 1) {
    RETURN_IF_ERROR(ReadShared(session.fs, *session.from, trainer.links(), trainer.backend(), trainer.stream(), state));
  } else {
    ASSIGN_OR_RETURN(HostState host, HostState::Open(trainer.backend(), trainer.stream(), state));
    RETURN_IF_ERROR(ReadState(session.fs, *session.from, host.tensors(), Coverage::kWholeState));
    host.Return();
    state.position = PositionOf(session.from->header());
  }
  return trainer.RefreshCompute();
}

absl::Status WriteRunFiles(const TrainRequest& request, Session& session) {
  RETURN_IF_ERROR(RemoveLeftovers(session.fs, session.checkpoints));
  ASSIGN_OR_RETURN(session.generation, BeginAttempt(session.fs, request.run_directory));
  RETURN_IF_ERROR(WriteFileDurably(session.fs, ConfigPath(request.run_directory), RunConfigText(request.config)));
  const std::string logs = JoinPath(JoinPath(request.run_directory, AttemptName(session.generation)), "logs");
  ASSIGN_OR_RETURN(session.log, RunLog::Create(session.fs, JoinPath(logs, "rank_00000.log")));
  return absl::OkStatus();
}

RunFacts Facts(const TrainRequest& request, const Session& session) {
  RunFacts facts = FactsOf(request.config, session.trainer->schedule());
  facts.generation = session.generation;
  facts.resumed_step = session.trainer->state().position.step;
  facts.stop_step = request.max_steps;
  facts.ranks = RanksOf(request);
  facts.threads_per_rank = session.threads;
  facts.instruction_set = session.device.instruction_set;
  facts.peak_gflops_per_rank = session.peak_gflops;
  facts.memory_table = session.trainer->memory_table();
  facts.data_table = session.data.blend_table;
  return facts;
}

// A terminal's line that is written over has no place in a file.
ObserveOptions ObserveTo(const TrainRequest& request, const Session& session) {
  ObserveOptions options;
  options.run_dir = request.run_directory;
  options.timed = session.timed.get();
  if (session.timed != nullptr) {
    options.measure_peak = [&request] { return MeasurePeak(request, kRoundsBetweenSteps); };
  }
  options.style.is_terminal = isatty(STDERR_FILENO) == 1;
  options.style.color = options.style.is_terminal && std::getenv("NO_COLOR") == nullptr;
  if (options.style.is_terminal) {
    options.write = [](absl::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); };
  } else {
    options.write = [log = session.log.get()](absl::string_view text) { log->Text(text); };
  }
  return options;
}

int PrintOutcome(const TrainRequest& request, StopReason reason, const OutcomeObserver& outcome,
                 const MemoryObserver& memory, const Session& session) {
  const bool finished = reason == StopReason::kFinished;
  const bool asked = reason == StopReason::kRequested;
  std::printf("%s: step %lld, %lld tokens, run directory %s\n",
              finished ? "finished" : (asked ? "saved, please restart" : "stopped at --max-steps"),
              static_cast<long long>(session.trainer->state().position.step),
              static_cast<long long>(session.trainer->state().position.tokens), request.run_directory.c_str());
  if (outcome.loss().has_value()) std::printf("training loss: %.4f nats/token\n", *outcome.loss());
  if (outcome.validation().has_value()) {
    const ValidationResult& validation = *outcome.validation();
    std::printf("validation loss: %.4f nats/token, %.4f bits/byte (step %lld)\n", validation.nats_per_token,
                validation.bits_per_byte, static_cast<long long>(validation.step));
  }
  std::printf("%s\n", memory.ToString().c_str());
  return static_cast<int>(asked ? ExitCode::kRestart : ExitCode::kDone);
}

// Rank 0's part: it watches, saves, reports and says how it ended.
absl::Status Train(const TrainRequest& request, Session& session) {
  MemoryObserver memory(session.memory_before, session.arena_bytes);
  OutcomeObserver outcome(session.known);
  const RunFacts facts = Facts(request, session);
  session.log->Text(StartBlock(facts));
  ASSIGN_OR_RETURN(const std::unique_ptr<RunObserver> observer,
                   RunObserver::Open(session.fs, RealClock(), facts, ObserveTo(request, session)));
  CheckpointObserver saver(session.fs, session.checkpoints, request.config, session.header, *session.trainer,
                           *session.log);
  for (TrainObserver* each : std::initializer_list<TrainObserver*>{observer.get(), &outcome, &saver, &memory}) {
    session.trainer->AddObserver(*each);
  }
  const std::unique_ptr<TraceObserver> trace = TraceOf(request, session, *session.trainer);
  const absl::StatusOr<StopReason> reason = session.trainer->Run();
  absl::Status written = observer->end_status();
  if (written.ok()) written = WriteReport(session.fs, request.run_directory);
  RETURN_IF_ERROR(reason.status());
  RETURN_IF_ERROR(written);
  session.exit_code = PrintOutcome(request, *reason, outcome, memory, session);
  return absl::OkStatus();
}

// Everything is there and in place before the first file is written.
absl::Status RunFirstRank(const TrainRequest& request, Session& session, std::optional<RankLinks> links) {
  Backend& device = *session.device.backend;
  if (device.memory_is_hosts()) session.timed = std::make_unique<TimingBackend>(device, RealClock());
  Backend& backend = session.timed != nullptr ? static_cast<Backend&>(*session.timed) : device;
  ASSIGN_OR_RETURN(session.trainer, MakeTrainer(request, session, backend, std::move(links)));
  RETURN_IF_ERROR(Restore(session, *session.trainer));
  RETURN_IF_ERROR(WriteRunFiles(request, session));
  session.header = RunHeader(request.config, session.data, session.generation, session.device.instruction_set);
  for (const std::string& note : session.notes) session.log->Line(note);
  return Train(request, session);
}

absl::Status RunOtherRank(const TrainRequest& request, Session& session, RankLinks links) {
  ASSIGN_OR_RETURN(const RunBackend device,
                   OpenRunBackend(request.config, request.isa, session.threads, links.rank.value));
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   MakeTrainer(request, session, *device.backend, LinksOf(*device.backend, std::move(links))));
  RETURN_IF_ERROR(Restore(session, *trainer));
  PartObserver part(session.fs, *trainer);
  trainer->AddObserver(part);
  const std::unique_ptr<TraceObserver> trace = TraceOf(request, session, *trainer);
  return trainer->Run().status();
}

absl::Status RunRanks(const TrainRequest& request, Session& session) {
  if (RanksOf(request) == 1) return RunFirstRank(request, session, std::nullopt);
  ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Create(config::ResolvePhase(request.config, 0).layout));
  return RunThreadRanks(mesh, [&](RankLinks links) {
    if (links.rank != Rank(0)) return RunOtherRank(request, session, std::move(links));
    const absl::Status status = RunFirstRank(request, session, LinksOf(*session.device.backend, std::move(links)));
    session.trainer.reset();  // its links end with their world
    return status;
  });
}

absl::Status ListenForSignals(const TrainRequest& request, Session& session) {
  try {
    session.stop_requests = std::make_unique<StopRequests>(request.exit_after_seconds);
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("the system gives no thread that waits for signals (",
                                                     error.code().message(),
                                                     "); raise the limit of threads (ulimit -u, a container's)"));
  }
  return absl::OkStatus();
}

}  // namespace

int RunTraining(const TrainRequest& request) {
  const absl::Status supported = CheckSupported(request.config);
  if (!supported.ok()) return Fail(Area::kConfig, supported);
  IgnoreClosedPipes();
  Session session;
  session.threads = ThreadsOfRank(request);
  const absl::Status listens = ListenForSignals(request, session);  // before the backend starts threads
  if (!listens.ok()) return Fail(Area::kRun, listens);
  absl::StatusOr<RunBackend> device = OpenRunBackend(request.config, request.isa, session.threads);
  if (!device.ok()) return Fail(Area::kConfig, device.status());
  session.device = *std::move(device);
  absl::Status status = Prepare(request, session);
  if (status.ok()) status = Claim(request, session);
  Area area = Area::kData;
  if (status.ok()) status = ChooseStart(request, session, area);
  if (!status.ok()) return Fail(area, status);
  session.known = KnownOf(request, session);
  status = RunRanks(request, session);
  if (status.ok()) return session.exit_code;
  const int code = Fail(Area::kRun, status);
  return IsStopOnPurpose(status) ? static_cast<int>(ExitCode::kStopped) : code;
}

}  // namespace shoestring
