// From released weights to what a run begins with, piece by piece.
#include "trainer/export/import_hf.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "configs/diff.h"
#include "configs/hf_config.h"
#include "kernels/arena.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/checkpoint/train_state_io.h"
#include "trainer/train_state.h"

namespace shoestring {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 18;

std::string ConfigJson(const std::string& directory) { return JoinPath(directory, "config.json"); }

// Makes the fields equal that change neither the function nor the tokens.
void ForgetWhatHasNoEffect(const config::ModelConfig& model, bool mtp, config::ModelConfig& released) {
  released.set_init_std(model.init_std());
  if (!mtp) released.set_mtp_depth(0);
  if (released.dense_layers() == 0 && model.has_dense_ffn()) released.set_dense_ffn(model.dense_ffn());
  if (!released.has_moe() || !model.has_moe()) return;
  if (released.moe().groups_kept() == released.moe().groups()) {
    released.mutable_moe()->set_group_score(model.moe().group_score());
  }
}

config::Problem ProblemOf(const config::Difference& difference, const config::Locations& locations,
                          const std::string& path) {
  config::Problem problem;
  problem.place = locations.Find(difference.field);
  problem.field = difference.field;
  const std::string ours = difference.before.empty() ? "is not set" : absl::StrCat("is ", difference.before);
  if (difference.after.empty()) {
    problem.problem = absl::StrCat(ours, ", but ", path, " has no such thing");
    problem.hint = "leave it out";
  } else {
    problem.problem = absl::StrCat(ours, ", but ", path, " means ", difference.after);
    problem.hint = absl::StrCat("say ", difference.field, "=", difference.after);
    if (difference.field == "model.mtp_depth") absl::StrAppend(&problem.hint, ", or 0 with --skip-mtp");
  }
  return problem;
}

absl::Status ReadParameter(HfWeights& source, const Parameter& parameter, const View& out) {
  CHECK(out.contiguous());
  CHECK_EQ(out.elements(), parameter.elements());
  std::vector<float> values;
  for (int64_t done = 0; done < parameter.elements(); done += kPieceElements) {
    const int64_t count = std::min(kPieceElements, parameter.elements() - done);
    values.resize(static_cast<size_t>(count));
    auto* const bytes = reinterpret_cast<char*>(values.data());
    RETURN_IF_ERROR(source.Read(parameter, done, count, bytes));
    ConvertElements(bytes, DType::kF32, reinterpret_cast<char*>(out.data) + done * SizeOf(out.dtype), out.dtype, count);
  }
  return absl::OkStatus();
}

// The tensors that a run of this config saves, with shapes and dtypes; their views have no memory.
std::vector<StateTensor> TensorsOfRun(const config::RunConfig& config, const std::vector<Parameter>& table) {
  StateFormat format;
  format.activation = DType::kF32;  // compute copies are not saved
  const bool bf16 = config.precision().moments() == config::PrecisionConfig::MOMENTS_BF16;
  format.moments = bf16 ? DType::kBF16 : DType::kF32;
  format.ema = config.train().has_ema();
  Arena arena = Arena::Measuring();
  const HeldTable held = HeldTable::Whole(table, /*copies=*/false);
  return StateTensorsOf(TrainState(arena, held, format));
}

}  // namespace

absl::StatusOr<config::ModelConfig> ReadHfModel(FileSystem& fs, const std::string& directory) {
  return config::LoadHfConfig(fs, ConfigJson(directory));
}

absl::StatusOr<std::vector<config::Problem>> FindHfMismatches(FileSystem& fs, const std::string& directory,
                                                              const config::ModelConfig& model,
                                                              const config::Locations& locations, bool mtp) {
  ASSIGN_OR_RETURN(config::ModelConfig released, ReadHfModel(fs, directory));
  ForgetWhatHasNoEffect(model, mtp, released);
  config::RunConfig ours, theirs;
  *ours.mutable_model() = model;
  *theirs.mutable_model() = released;
  std::vector<config::Problem> problems;
  for (const config::Difference& difference : config::Diff(ours, theirs)) {
    problems.push_back(ProblemOf(difference, locations, ConfigJson(directory)));
  }
  return problems;
}

absl::StatusOr<HfImported> ImportHf(FileSystem& fs, const std::string& directory, const config::ModelConfig& model,
                                    const std::map<std::string, View>& weights, const HfImport& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<HfWeights> source, HfWeights::Open(fs, directory, model, options));
  for (const Parameter& p : source->table()) {
    if (p.is_mtp && !options.mtp) continue;
    RETURN_IF_ERROR(ReadParameter(*source, p, weights.at(p.name)));
  }
  return HfImported{source->tensors(), source->weight_bytes()};
}

absl::StatusOr<HfCheckpoint> ImportHfCheckpoint(FileSystem& fs, const std::string& directory,
                                                const config::RunConfig& config, checkpoint::SnapshotHeader header,
                                                const std::string& checkpoints, const HfImport& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<HfWeights> source, HfWeights::Open(fs, directory, config.model(), options));
  std::map<std::string, const Parameter*> parameters;
  for (const Parameter& p : source->table()) {
    RETURN_IF_ERROR(source->DTypeOfParameter(p).status());
    parameters[p.name] = &p;
  }
  SetPosition(RunPosition(), header);
  const Snapshot snapshot = {std::move(header), TensorsOfRun(config, source->table())};
  const TensorReader read = [&](const StateTensor& tensor, int64_t begin, int64_t size,
                                std::string& buffer) -> absl::Status {
    if (tensor.kind == StateKind::kExpAvg || tensor.kind == StateKind::kExpAvgSq) {
      buffer.assign(static_cast<size_t>(size), '\0');
      return absl::OkStatus();
    }
    constexpr int64_t kBytes = SizeOf(DType::kF32);
    CHECK(begin % kBytes == 0 && size % kBytes == 0);
    buffer.resize(static_cast<size_t>(size));
    return source->Read(*parameters.at(tensor.name), begin / kBytes, size / kBytes, buffer.data());
  };
  HfCheckpoint result;
  ASSIGN_OR_RETURN(result.saved, SaveCheckpoint(fs, checkpoints, snapshot, {}, read));
  result.imported = {source->tensors(), source->weight_bytes()};
  return result;
}

}  // namespace shoestring
