// Trains a config on ranks that are threads, and hashes the whole state, wherever its parts lie.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "configs/resolve.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/checkpoint/digest.h"
#include "trainer/checkpoint/train_state_io.h"
#include "trainer/thread_ranks.h"

namespace shoestring {

// What a run left, the same whatever its layout.
struct LayoutResult {
  std::map<std::string, std::string> tensors;  // SHA-256 by stored name
  std::vector<double> losses;                  // total, of each step
  std::vector<double> validation;              // after the last step
  double grad_norm = 0;

  std::string Sha() const {
    std::string all;
    for (const auto& [name, sha] : tensors) absl::StrAppend(&all, name, " ", sha, "\n");
    return absl::BytesToHexString(Sha256::Of(all));
  }
};

// The bytes of whole tensors, put together from the parts of all ranks.
class StateCollector {
 public:
  void Add(const TrainState& state, const RankLinks& links) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::vector<StateTensor> tensors = WholeStateTensors(state);
    for (const StateTensor& tensor : tensors) bytes_[StoredName(tensor)];
    for (const StatePart& part : PartsOf(state, links, StateScope::kSpoken)) {
      const StateTensor& tensor = tensors[part.tensor];
      int64_t elements = 1;
      for (int64_t dimension : tensor.shape) elements *= dimension;
      const int64_t size = SizeOf(part.view.dtype);
      std::string& bytes = bytes_[StoredName(tensor)];
      std::string& seen = seen_[StoredName(tensor)];
      bytes.resize(elements * size);
      seen.resize(elements);
      std::memcpy(bytes.data() + part.first * size, part.view.data, part.view.bytes());
      for (int64_t i = part.first; i < part.first + part.view.elements(); ++i) CHECK_EQ(seen[i]++, 0);
    }
  }
  std::map<std::string, std::string> Shas() const {
    std::map<std::string, std::string> shas;
    for (const auto& [name, bytes] : bytes_) {
      CHECK(seen_.contains(name));
      CHECK(std::all_of(seen_.at(name).begin(), seen_.at(name).end(), [](char c) { return c == 1; }));
      shas[name] = absl::BytesToHexString(Sha256::Of(bytes));
    }
    return shas;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> bytes_, seen_;
};

inline absl::StatusOr<LayoutResult> TrainOnThreads(const config::RunConfig& config, int steps) {
  absl::StatusOr<Mesh> mesh = Mesh::Create(config::ResolvePhase(config, 0).layout);
  RETURN_IF_ERROR(mesh.status());
  StateCollector collector;
  LayoutResult result;
  RETURN_IF_ERROR(RunThreadRanks(*mesh, [&](RankLinks links) -> absl::Status {
    const bool first = links.rank == Rank(0);
    const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
    ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                     Trainer::Create(config, FormulaData(config), *backend, RealClock(), {}, std::move(links)));
    for (int i = 0; i < steps; ++i) {
      ASSIGN_OR_RETURN(const StepResult* step, trainer->Step());
      if (!first) continue;
      result.losses.push_back(step->total_loss());
      result.grad_norm = step->grad_norm;
    }
    ASSIGN_OR_RETURN(const std::optional<ValidationResult> validation, trainer->RunValidation());
    if (first && validation.has_value()) {
      result.validation = {validation->nats_per_token, static_cast<double>(validation->targets)};
    }
    collector.Add(trainer->state(), trainer->links());
    return absl::OkStatus();
  }));
  result.tensors = collector.Shas();
  return result;
}

}  // namespace shoestring
