// Allocation and initialisation of the state of a run.
#include "trainer/train_state.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

// Elements that are made on the host at once, before they go to the backend.
constexpr int64_t kChunkElements = int64_t{1} << 20;
constexpr int64_t kGrainElements = 4096;

void FillNormal(const Rng& rng, int64_t first, double std_dev, ThreadPool& pool, std::vector<float>& chunk,
                int64_t count) {
  pool.ParallelRanges(count, kGrainElements, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) chunk[i] = static_cast<float>(std_dev * rng.Normal(first + i));
  });
}

}  // namespace

uint64_t InitStream(absl::string_view parameter_name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : parameter_name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

MutableOperand AllocateQuantisedWeight(Arena& arena, const Parameter& p, const OperandFormat& format) {
  return AllocateOperand(arena, Purpose::kComputeWeights, absl::StrCat(p.name, " quantised"), format, p.stack * p.rows,
                         p.cols, p.stack);
}

void QuantiseWeight(Backend& backend, Stream& stream, const Parameter& p, ConstView compute,
                    const MutableOperand& quantised) {
  if (quantised) backend.Quantize(stream, {compute, quantised, p.stack, /*segments=*/{}});
}

TrainState::FlatCopies TrainState::MakeCopies(Arena& arena, const SharingGroup& group, const char* what, DType dtype,
                                              int64_t first, int64_t elements) const {
  FlatCopies copies;
  if (elements == 0) return copies;
  copies.flat = arena.Allocate(Purpose::kComputeWeights, absl::StrCat(group.name, what), dtype, 1, elements);
  for (int64_t boundary : group.boundaries)
    copies.offsets.push_back(std::clamp<int64_t>(boundary - first, 0, elements));
  return copies;
}

TrainState::TrainState(Arena& arena, const HeldTable& held, const StateFormat& format) : held_(held), format_(format) {
  for (const SharingGroup& group : held.groups()) {
    const int64_t copied = group.copied_elements;
    copies_.push_back(MakeCopies(arena, group, ", copies", format.activation, 0, copied));
    f32_copies_.push_back(
        MakeCopies(arena, group, ", f32 copies", DType::kF32, copied, group.sharded ? group.elements - copied : 0));
  }
  for (size_t i = 0; i < table().size(); ++i) {
    const Parameter& p = table()[i];
    const HeldParameter& part = held.held()[i];
    ParameterState& state = parameters_.emplace_back();
    const auto allocate = [&](Purpose purpose, absl::string_view what, DType dtype) {
      if (part.kept.count == 0) return View();
      const std::string name = absl::StrCat(p.name, what);
      return part.keeps_all(p) ? arena.Allocate(purpose, name, dtype, p.stack * p.rows, p.cols)
                               : arena.Allocate(purpose, name, dtype, 1, part.kept.count);
    };
    state.master = allocate(Purpose::kMasterWeights, "", DType::kF32);
    if (part.group >= 0) {
      const int64_t copied = held.groups()[part.group].copied_elements;
      const bool is_copied = part.group_offset < copied;
      const View flat = (is_copied ? copies_ : f32_copies_)[part.group].flat;
      const int64_t first = part.group_offset - (is_copied ? 0 : copied);
      if (flat) state.compute = flat.Columns(first, p.elements()).Reshape(p.stack * p.rows, p.cols);
    }
    if (p.linear && format.linear.quantised()) state.quantised = AllocateQuantisedWeight(arena, p, format.linear);
    if (!p.trained) continue;
    state.m = allocate(Purpose::kMoments, " m", format.moments);
    state.v = allocate(Purpose::kMoments, " v", format.moments);
    if (format.ema) state.ema = allocate(Purpose::kEma, " average", DType::kF32);
  }
}

void TrainState::Initialize(Backend& backend, Stream& stream, ThreadPool& pool, uint64_t seed, double init_std) {
  std::vector<float> chunk(kChunkElements);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& p = table()[i];
    const HeldParameter& held = held_.held()[i];
    const ParameterState& state = parameters_[i];
    if (held.kept.count == 0) continue;
    const View flat = state.master.Reshape(1, held.kept.count);
    const int64_t first_of_whole = held.first_matrix * p.rows * p.cols + held.kept.first;
    const Rng rng(seed, RngPurpose::kInit, InitStream(p.name));
    const float constant = p.initializer == Initializer::kOnes ? 1.0f : 0.0f;
    for (int64_t first = 0; first < held.kept.count; first += kChunkElements) {
      const int64_t count = std::min(kChunkElements, held.kept.count - first);
      if (p.initializer == Initializer::kNormal) {
        FillNormal(rng, first_of_whole + first, init_std, pool, chunk, count);
      } else {
        std::fill_n(chunk.begin(), count, constant);
      }
      backend.CopyFromHost(stream, chunk.data(), flat.Columns(first, count));
      backend.Synchronize(stream);  // the chunk is filled again
    }
    if (state.m) {
      backend.Zero(stream, state.m);
      backend.Zero(stream, state.v);
    }
    if (state.ema) backend.Copy(stream, state.master, state.ema);
  }
  position = RunPosition();
}

View TrainState::KeptCopy(size_t index) const {
  const ParameterState& state = parameters_[index];
  const IndexRange& kept = held_.held()[index].kept;
  if (!state.compute || kept.count == 0) return View();
  return state.compute.Reshape(1, state.compute.elements()).Columns(kept.first, kept.count);
}

absl::Status TrainState::RefreshCompute(Backend& backend, Stream& stream, const RankLinks& links) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const View copy = KeptCopy(i);
    if (copy) backend.Copy(stream, parameters_[i].master.Reshape(1, copy.elements()), copy);
  }
  RETURN_IF_ERROR(GatherCompute(backend, stream, links));
  backend.Synchronize(stream);
  return absl::OkStatus();
}

absl::Status TrainState::GatherCompute(Backend& backend, Stream& stream, const RankLinks& links) {
  for (size_t g = 0; g < held_.groups().size(); ++g) {
    const SharingGroup& group = held_.groups()[g];
    if (!group.sharded) continue;
    const int me = group.ranks.IndexOf(links.rank);
    for (const FlatCopies* copies : {&copies_[g], &f32_copies_[g]}) {
      if (!copies->flat) continue;
      const View rows = copies->flat.Reshape(copies->flat.elements(), 1);
      const int64_t first = copies->offsets[me];
      RETURN_IF_ERROR(links.Of(group.kind)
                          .AllGatherV(stream, rows.Rows(first, copies->offsets[me + 1] - first), rows, copies->offsets,
                                      links.Named("gather weights")));
    }
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    QuantiseWeight(backend, stream, table()[i], parameters_[i].compute, parameters_[i].quantised);
  }
  return absl::OkStatus();
}

}  // namespace shoestring
