// Trains on threads and reads the counters around the last step.
#include "tests/layouts/layout_run.h"

#include <memory>
#include <optional>
#include <utility>

#include "kernels/cpu/cpu_backend.h"

namespace shoestring {
namespace {

// A hang is an error soon enough.
constexpr double kTimeout = 240.0;

// Notes what tokens choose.
class ChoiceRecorder final : public TimingBackend {
 public:
  explicit ChoiceRecorder(Backend& inner) : TimingBackend(inner, RealClock()), inner_(inner) {}

  std::vector<Choices> choices;
  bool recording = false;

 private:
  void DoGate(Stream& stream, const GateArgs& args, const GateResult& result) override {
    inner_.Gate(stream, args, result);
    if (!recording) return;
    Choices& chosen = choices.emplace_back(result.experts.elements());
    inner_.CopyToHost(stream, result.experts, chosen.data());
    inner_.Synchronize(stream);
  }

  Backend& inner_;
};

std::map<std::string, Communicator*> Communicators(const RankLinks& links) {
  std::map<std::string, Communicator*> all = {
      {"world", links.world.get()},       {"forward", links.forward.get()},
      {"backward", links.backward.get()}, {"replicas", links.replicas.get()},
      {"experts", links.experts.get()},   {"expert replicas", links.expert_replicas.get()}};
  if (links.ends != nullptr) all["ends"] = links.ends.get();
  return all;
}

class RankRun {
 public:
  RankRun(const config::RunConfig& config, int steps, LayoutRun& run, StateCollector& collector)
      : config_(config), steps_(steps), run_(run), collector_(collector) {}

  absl::Status Run(RankLinks links) {
    links.timeout_s = kTimeout;
    const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
    ChoiceRecorder backend(*cpu);
    ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                     Trainer::Create(config_, FormulaData(config_), backend, RealClock(), {}, std::move(links)));
    const bool first = trainer->links().rank == Rank(0);
    for (int i = 0; i < steps_; ++i) {
      if (i + 1 == steps_) {
        backend.recording = true;
        for (const auto& [name, link] : Communicators(trainer->links())) link->ResetCounters();
      }
      ASSIGN_OR_RETURN(const StepResult* step, trainer->Step());
      backend.recording = false;
      if (i + 1 == steps_) RETURN_IF_ERROR(Record(*trainer, *step, backend));
      if (!first) continue;
      run_.result.losses.push_back(step->total_loss());
      run_.result.grad_norm = step->grad_norm;
      run_.expert_counts = step->expert_counts;
    }
    ASSIGN_OR_RETURN(const std::optional<ValidationResult> validation, trainer->RunValidation());
    if (first && validation.has_value()) {
      run_.result.validation = {validation->nats_per_token, static_cast<double>(validation->targets)};
    }
    collector_.Add(trainer->state(), trainer->links());
    return absl::OkStatus();
  }

 private:
  absl::Status Record(Trainer& trainer, const StepResult& step, ChoiceRecorder& backend) {
    RankRecord& record = run_.ranks[trainer.links().rank.value];
    record.work = step.work;
    for (int p = 0; p < kPurposeCount; ++p) {
      record.arena[p] = trainer.arena_high_water_bytes(static_cast<Purpose>(p));
    }
    for (const auto& [name, link] : Communicators(trainer.links())) {
      const VerbCounters total = link->counters().Total();
      record.received[name] = {total.messages_received, total.bytes_received};
    }
    ASSIGN_OR_RETURN(TrainStep * taken, trainer.CurrentStep());
    record.program = taken->actions();
    record.executed = taken->executed();
    record.choices = std::move(backend.choices);
    return absl::OkStatus();
  }

  const config::RunConfig& config_;
  const int steps_;
  LayoutRun& run_;
  StateCollector& collector_;
};

}  // namespace

absl::StatusOr<LayoutRun> RunLayout(const config::RunConfig& config, int steps) {
  ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Create(config::ResolvePhase(config, 0).layout));
  StateCollector collector;
  LayoutRun run;
  run.ranks.resize(mesh.world_size());
  RETURN_IF_ERROR(RunThreadRanks(
      mesh, [&](RankLinks links) { return RankRun(config, steps, run, collector).Run(std::move(links)); }));
  run.result.tensors = collector.Shas();
  return run;
}

}  // namespace shoestring
