// Allocation and initialisation of the state of a run.
#include "trainer/train_state.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/rng.h"

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

TrainState::TrainState(Arena& arena, const std::vector<Parameter>& table, const StateFormat& format) : table_(table) {
  for (const Parameter& p : table_) {
    const auto allocate = [&](Purpose purpose, absl::string_view what, DType dtype) {
      return arena.Allocate(purpose, absl::StrCat(p.name, what), dtype, p.stack * p.rows, p.cols);
    };
    ParameterState& state = parameters_.emplace_back();
    state.master = allocate(Purpose::kMasterWeights, "", DType::kF32);
    if (p.compute_copy && format.activation != DType::kF32) {
      state.compute = allocate(Purpose::kComputeWeights, " copy", format.activation);
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
    const Parameter& p = table_[i];
    const ParameterState& state = parameters_[i];
    const View flat = state.master.Reshape(1, p.elements());
    const Rng rng(seed, RngPurpose::kInit, InitStream(p.name));
    const float constant = p.initializer == Initializer::kOnes ? 1.0f : 0.0f;
    for (int64_t first = 0; first < p.elements(); first += kChunkElements) {
      const int64_t count = std::min(kChunkElements, p.elements() - first);
      if (p.initializer == Initializer::kNormal) {
        FillNormal(rng, first, init_std, pool, chunk, count);
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
  RefreshCompute(backend, stream);
}

void TrainState::RefreshCompute(Backend& backend, Stream& stream) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const ParameterState& state = parameters_[i];
    if (state.compute) backend.Copy(stream, state.master, state.compute);
    QuantiseWeight(backend, stream, table_[i], state.compute, state.quantised);
  }
  backend.Synchronize(stream);
}

}  // namespace shoestring
